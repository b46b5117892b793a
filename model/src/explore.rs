//! The explorer: breadth first, so that the first counterexample is a shortest one.
//!
//! Of a state that was seen only a few numbers are kept: its digest, how it was reached, and where it goes if nothing fails.
//! Whole states are kept only for the border, where the next steps are taken.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    hash::{BuildHasherDefault, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use crate::{bounds::Bounds, ledger::Violation, step::Step, world::World};

/// What was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// States of different digests.
    pub states: usize,
    /// Steps taken from them.
    pub transitions: usize,
    /// Steps from the start to the farthest of them.
    pub depth: usize,
    /// Was every state explored, or did the limit end it?
    pub complete: bool,
    /// Steps until all is at rest if nothing fails, from the state where that takes longest.
    pub longest_recovery: usize,
    /// A promise that does not hold.
    pub counterexample: Option<Counterexample>,
}

/// How a promise is broken.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// What is wrong.
    pub what: String,
    /// The steps that lead there, in words; one of the shortest ways.
    pub steps: Vec<String>,
}

/// How far an exploration is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Steps from the start.
    pub depth: usize,
    /// States of different digests so far.
    pub states: usize,
    /// States whose steps are still to be taken.
    pub border: usize,
}

/// Explores all that the bounds allow, until `most_states` states were seen. `tell` hears of every further step from the start.
pub fn explore(bounds: Bounds, most_states: usize, mut tell: impl FnMut(Progress)) -> Report {
    let mut explorer = Explorer { bounds: Rc::new(bounds), seen: Seen::default(), transitions: 0 };
    let (mut depth, mut border) = (0, Vec::new());
    let mut counterexample = explorer.start(&mut border).err();
    while counterexample.is_none() && !border.is_empty() && explorer.seen.len() < most_states {
        tell(Progress { depth, states: explorer.seen.len(), border: border.len() });
        counterexample = explorer.advance(&mut border).err();
        depth += 1;
    }
    let mut longest_recovery = 0;
    if counterexample.is_none() {
        match explorer.check_liveness(border.as_slice()) {
            Ok(longest) => longest_recovery = longest,
            Err(found) => counterexample = Some(found),
        }
    }
    Report {
        states: explorer.seen.len(),
        transitions: explorer.transitions,
        depth,
        complete: border.is_empty() && counterexample.is_none(),
        longest_recovery,
        counterexample,
    }
}

struct Explorer {
    bounds: Rc<Bounds>,
    seen: Seen,
    transitions: usize,
}

/// States by digest. The digests are hashes already.
type Seen = HashMap<u64, Visit, BuildHasherDefault<Digest>>;

/// What is kept of a state.
#[derive(Clone, Copy, Debug)]
struct Visit {
    /// The state before, and which of its steps led here; none for the start.
    from: Option<(u64, u16)>,
    /// The state that follows if nothing fails; itself if all is at rest, none before its steps are taken.
    healthy: Option<u64>,
}

/// A state at the border.
type Reached = (u64, World);

impl Explorer {
    fn start(&mut self, border: &mut Vec<Reached>) -> Result<(), Counterexample> {
        let world = World::new(Rc::clone(&self.bounds)).map_err(|Violation(what)| Counterexample { what, steps: Vec::new() })?;
        let digest = world.digest();
        self.seen.insert(digest, Visit { from: None, healthy: None });
        border.push((digest, world));
        Ok(())
    }

    /// Takes every step from every state at the border; the new states are the next border.
    fn advance(&mut self, border: &mut Vec<Reached>) -> Result<(), Counterexample> {
        let mut next = Vec::new();
        for (digest, world) in border.drain(..) {
            let healthy = match world.next_if_healthy() {
                Some(healthy) => self.expand(digest, &world, healthy, &mut next)?,
                None if world.is_settled() => {
                    self.expand(digest, &world, Step::Send, &mut next)?;
                    Some(digest)
                }
                None => {
                    return Err(self.counterexample(
                        digest,
                        None,
                        "a Send never gets its outcome, though nothing fails any more",
                    ));
                }
            };
            self.seen.get_mut(&digest).expect("it is at the border").healthy = healthy;
        }
        *border = next;
        Ok(())
    }

    /// Takes every step from one state; returns where one of them leads.
    fn expand(
        &mut self,
        digest: u64,
        world: &World,
        asked: Step,
        next: &mut Vec<Reached>,
    ) -> Result<Option<u64>, Counterexample> {
        let mut answer = None;
        for (index, step) in (0..).zip(world.steps()) {
            self.transitions += 1;
            let mut after = world.clone();
            let reached = match taken(&mut after, step) {
                Ok(reached) => reached,
                Err(Violation(what)) => return Err(self.counterexample(digest, Some(step), &what)),
            };
            if step == asked {
                answer = Some(reached);
            }
            if let Entry::Vacant(new) = self.seen.entry(reached) {
                new.insert(Visit { from: Some((digest, index)), healthy: None });
                next.push((reached, after));
            }
        }
        Ok(answer)
    }

    /// Follows every state to where all is at rest. Returns the length of the longest way.
    fn check_liveness(&mut self, border: &[Reached]) -> Result<usize, Counterexample> {
        for (digest, world) in border {
            self.follow(*digest, world.clone())?;
        }
        let mut lengths: HashMap<u64, usize, BuildHasherDefault<Digest>> = HashMap::default();
        let mut longest = 0;
        for start in self.seen.keys() {
            let (mut way, mut at, mut on_way) = (Vec::new(), *start, HashSet::<u64, BuildHasherDefault<Digest>>::default());
            let rest = loop {
                if let Some(length) = lengths.get(&at) {
                    break *length;
                }
                if !on_way.insert(at) {
                    return Err(self.counterexample(
                        at,
                        None,
                        "it goes round in circles for ever, though nothing fails any more",
                    ));
                }
                way.push(at);
                match self.seen[&at].healthy {
                    Some(next) if next == at => break 0,
                    Some(next) => at = next,
                    None => unreachable!("every state was expanded or followed"),
                }
            };
            for (further, digest) in way.iter().rev().enumerate() {
                let at_rest = usize::from(self.seen[way.last().expect("not empty")].healthy != way.last().copied());
                lengths.insert(*digest, rest + further + at_rest);
                longest = longest.max(rest + further + at_rest);
            }
        }
        Ok(longest)
    }

    /// Follows one state whose steps were not taken, to one that is known.
    fn follow(&mut self, mut digest: u64, mut world: World) -> Result<(), Counterexample> {
        while self.seen[&digest].healthy.is_none() {
            let next = match world.next_if_healthy() {
                None if world.is_settled() => digest,
                None => {
                    return Err(self.counterexample(
                        digest,
                        None,
                        "a Send never gets its outcome, though nothing fails any more",
                    ));
                }
                Some(step) => match taken(&mut world, step) {
                    Ok(reached) => {
                        let index = u16::MAX;
                        self.seen.entry(reached).or_insert(Visit { from: Some((digest, index)), healthy: None });
                        reached
                    }
                    Err(Violation(what)) => return Err(self.counterexample(digest, Some(step), &what)),
                },
            };
            self.seen.get_mut(&digest).expect("it was just looked at").healthy = Some(next);
            digest = next;
        }
        Ok(())
    }

    /// The way to a state, and the step from there.
    fn counterexample(&self, digest: u64, last: Option<Step>, what: &str) -> Counterexample {
        let (mut indices, mut at) = (Vec::new(), digest);
        while let Some((before, index)) = self.seen[&at].from {
            indices.push(index);
            at = before;
        }
        let mut world = World::new(Rc::clone(&self.bounds)).expect("it began well");
        let mut steps = Vec::new();
        for index in indices.into_iter().rev() {
            let step = match index {
                u16::MAX => world.next_if_healthy().expect("it was followed"),
                index => world.steps()[usize::from(index)],
            };
            steps.push(world.describe(step));
            world.take(step).expect("it went well before");
        }
        steps.extend(last.map(|step| world.describe(step)));
        steps.push(format!("the durable logs are {}", world.logs()));
        Counterexample { what: what.to_owned(), steps }
    }
}

/// Takes a step. A machine that panics has broken a promise as well.
fn taken(world: &mut World, step: Step) -> Result<u64, Violation> {
    let outcome = catch_unwind(AssertUnwindSafe(|| world.take(step).map(|()| world.digest())));
    outcome.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        Err(Violation(format!("panic: {}", words.unwrap_or_default())))
    })
}

/// Passes a digest through.
#[derive(Default)]
struct Digest(u64);

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a digest is a u64");
    }

    fn write_u64(&mut self, digest: u64) {
        self.0 = digest;
    }
}
