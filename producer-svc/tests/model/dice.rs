//! Many small choices from one number.

/// A number that is used up choice by choice; then everything is 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// From 0 on, below `sides`.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        let sides = u64::try_from(sides).expect("few");
        let rolled = self.0 % sides;
        self.0 /= sides;
        usize::try_from(rolled).expect("few")
    }

    /// One of these.
    pub(crate) fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())]
    }
}
