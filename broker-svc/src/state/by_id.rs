//! A map for producer ids, which are handed out in ascending order: entries stand side by side in blocks of up to 64 neighbouring
//! ids. So a million of them take hardly more memory than what they are; a tree that grows at its end is left half empty.

use std::{collections::BTreeMap, ops::Bound};

use oncelog_proto::ProducerId;

/// Values by producer id, in the order of the ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ById<V> {
    /// By the ids' upper bits; each block sorted, none of them empty.
    blocks: BTreeMap<i64, Vec<(ProducerId, V)>>,
    len: usize,
}

impl<V> Default for ById<V> {
    fn default() -> Self {
        Self { blocks: BTreeMap::new(), len: 0 }
    }
}

impl<V> ById<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, id: ProducerId) -> Option<&V> {
        let block = self.blocks.get(&block_of(id))?;
        place(block, id).ok().map(|at| &block[at].1)
    }

    pub(super) fn get_mut(&mut self, id: ProducerId) -> Option<&mut V> {
        let block = self.blocks.get_mut(&block_of(id))?;
        place(block, id).ok().map(|at| &mut block[at].1)
    }

    /// Gives the value back if there is one of that id already.
    pub(super) fn insert(&mut self, id: ProducerId, value: V) -> Result<(), V> {
        let block = self.blocks.entry(block_of(id)).or_default();
        let Err(at) = place(block, id) else { return Err(value) };
        block.insert(at, (id, value));
        self.len += 1;
        Ok(())
    }

    pub(super) fn remove(&mut self, id: ProducerId) -> Option<V> {
        let number = block_of(id);
        let block = self.blocks.get_mut(&number)?;
        let (_, value) = block.remove(place(block, id).ok()?);
        self.len -= 1;
        if block.is_empty() {
            self.blocks.remove(&number);
        } else if block.len() <= block.capacity() / 2 {
            // A few that stay while their neighbours expire must not keep the memory of all.
            block.shrink_to_fit();
        }
        Some(value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ProducerId, &V)> {
        self.blocks.values().flatten().map(|(id, value)| (*id, value))
    }

    /// Those above `after`.
    pub(super) fn iter_after(&self, after: Option<ProducerId>) -> impl Iterator<Item = (ProducerId, &V)> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Included(block_of(after)));
        let is_passed = move |id: ProducerId| after.is_some_and(|after| id <= after);
        let entries = self.blocks.range((from, Bound::Unbounded)).flat_map(|(_, block)| block);
        entries.skip_while(move |(id, _)| is_passed(*id)).map(|(id, value)| (*id, value))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.blocks.values_mut().flatten().map(|(_, value)| value)
    }
}

fn block_of(id: ProducerId) -> i64 {
    id.get() >> BLOCK_BITS
}

fn place<V>(block: &[(ProducerId, V)], id: ProducerId) -> Result<usize, usize> {
    block.binary_search_by_key(&id, |(id, _)| *id)
}

/// Blocks of 64.
const BLOCK_BITS: u32 = 6;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: i64) -> ProducerId {
        ProducerId::new(n).expect("not negative")
    }

    proptest! {
        #[test]
        fn it_does_what_a_tree_does(steps in prop::collection::vec((any::<bool>(), 0_i64..300), 0..400), after in 0_i64..300) {
            let (mut map, mut tree) = (ById::default(), BTreeMap::new());
            for (step, (insert, n)) in steps.into_iter().enumerate() {
                if insert {
                    let is_new = !tree.contains_key(&id(n));
                    prop_assert_eq!(map.insert(id(n), step).is_ok(), is_new);
                    tree.entry(id(n)).or_insert(step);
                } else {
                    prop_assert_eq!(map.remove(id(n)), tree.remove(&id(n)));
                }
                prop_assert_eq!(map.get(id(n)), tree.get(&id(n)));
                prop_assert_eq!(map.len(), tree.len());
            }
            prop_assert!(map.iter().eq(tree.iter().map(|(id, value)| (*id, value))));
            prop_assert!(map.iter_after(None).eq(map.iter()));
            let above = tree.range((Bound::Excluded(id(after)), Bound::Unbounded));
            prop_assert!(map.iter_after(Some(id(after))).eq(above.map(|(id, value)| (*id, value))));
        }
    }

    #[test]
    fn memory_goes_with_the_entries() {
        let mut map = ById::default();
        (0..64).for_each(|n| map.insert(id(n), n).expect("new"));
        let capacity = |map: &ById<i64>| map.blocks.values().map(Vec::capacity).sum::<usize>();
        assert_eq!(capacity(&map), 64, "nothing to spare");
        (0..63).for_each(|n| assert_eq!(map.remove(id(n)), Some(n)));
        assert!(capacity(&map) < 4);
        assert_eq!(map.remove(id(63)), Some(63));
        assert_eq!(map.blocks.len(), 0);
    }
}
