//! Numbers that look like chance and are the same everywhere.

/// A seeded generator: SplitMix64 (Steele, Lea, Flood 2014). It holds the seed at first.
///
/// ```
/// use snnc_ir::random::SplitMix64;
///
/// let mut random = SplitMix64(1);
/// assert_eq!(random.bits(), 0x910a_2dec_8902_5cc1);
/// ```
#[derive(Clone, Debug)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
