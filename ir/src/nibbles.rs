//! Weights of 4 bits in groups of inputs, as they lie in memory.
//!
//! An element is `multiplier * level`: a level from -8 to 7 for each input and output, a multiplier from -127 to 127 for each
//! group of inputs and output. So every element is an integer, and a product with levels is exact in i32, as that of int8
//! weights is. Bytes are `[m / 64]` panels of `[k / group]` groups. A group is 64 multipliers and `[k' / 8][64][4]` bytes, where `k'` are
//! its inputs: byte `[b][o][i]` holds output `o` of input `8 b + i` below and of input `8 b + 4 + i` above, each plus 8. The last group may
//! be short; what there is beyond the last input has the level 0, what there is beyond the last output the multiplier 0 too.

/// Outputs of a panel of weights: a row of bytes of it is a cache line.
pub const PANEL: usize = 64;

/// Inputs of a group are a multiple of this: two for each byte of a quarter of a cache line.
pub const GROUP_STEP: usize = 8;

/// The most inputs of a group. Sums of a group then fit 16 bits, before they are multiplied.
pub const GROUP_MAX: usize = 32;

/// The least level.
pub const LEVEL_LEAST: i8 = -8;

/// The largest level.
pub const LEVEL_MOST: i8 = 7;

/// The largest magnitude of a multiplier.
pub const MULTIPLIER_MOST: i8 = 127;

/// The largest magnitude of an element.
pub const ELEMENT_MOST: i32 = 8 * 127;

/// Bytes of eight inputs of a panel.
pub const BLOCK: usize = GROUP_STEP * PANEL / 2;

/// A byte whose two levels are 0.
const ZEROS: u8 = 0x88;

/// Sizes of a matrix of 4-bit weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupedSizes {
    inputs: usize,
    outputs: usize,
    group: usize,
}

/// One group of a panel.
#[derive(Clone, Copy, Debug)]
pub struct WeightGroup<'a> {
    /// Its first input.
    pub first: usize,
    /// How many inputs it has, without what fills up the last eight.
    pub inputs: usize,
    /// By output.
    pub multipliers: &'a [i8],
    /// Levels, two per byte, plus 8.
    pub levels: &'a [u8],
}

impl WeightGroup<'_> {
    /// The level of an input of the group at an output of the panel.
    pub fn level(&self, input: usize, output: usize) -> i8 {
        let byte = self.levels[place(input, output)];
        (if is_high(input) { byte >> 4 } else { byte & 0xf }) as i8 + LEVEL_LEAST
    }
}

fn place(input: usize, output: usize) -> usize {
    input / GROUP_STEP * BLOCK + output * 4 + input % 4
}

fn is_high(input: usize) -> bool {
    input % GROUP_STEP >= 4
}

/// Whether a group may have so many inputs.
pub fn is_group(group: usize) -> bool {
    (GROUP_STEP..=GROUP_MAX).contains(&group) && group.is_multiple_of(GROUP_STEP)
}

impl GroupedSizes {
    /// `None` if `sizes` are no matrix, a group cannot have so many inputs, or the bytes are more than memory has addresses.
    pub fn new(sizes: &[usize], group: u16) -> Option<Self> {
        let (&[inputs, outputs], group) = (sizes, usize::from(group)) else { return None };
        let fits = |panel: usize| panel.checked_mul(outputs.div_ceil(PANEL)).and_then(|all| isize::try_from(all).ok());
        let own = Self { inputs, outputs, group };
        (is_group(group) && inputs.checked_mul(PANEL + BLOCK).is_some() && fits(own.panel_bytes()).is_some())
            .then_some(own)
    }

    /// Inputs of the matrix.
    pub fn inputs(self) -> usize {
        self.inputs
    }

    /// Outputs of the matrix.
    pub fn outputs(self) -> usize {
        self.outputs
    }

    /// Inputs of a group; the last may have fewer.
    pub fn group(self) -> usize {
        self.group
    }

    /// Groups of inputs.
    pub fn groups(self) -> usize {
        self.inputs.div_ceil(self.group)
    }

    /// Bytes of 64 outputs.
    pub fn panel_bytes(self) -> usize {
        self.groups() * PANEL + self.inputs.div_ceil(GROUP_STEP) * BLOCK
    }

    /// Bytes of all.
    pub fn bytes(self) -> usize {
        self.panel_bytes() * self.outputs.div_ceil(PANEL)
    }

    /// The same matrix with other outputs.
    pub fn of_outputs(self, outputs: usize) -> Self {
        Self { outputs, ..self }
    }

    /// The groups of a panel, in the order of inputs.
    pub fn groups_of(self, panel: &[u8]) -> impl Iterator<Item = WeightGroup<'_>> {
        let whole = PANEL + self.group / GROUP_STEP * BLOCK;
        panel.chunks(whole).zip((0..).step_by(self.group)).map(move |(bytes, first)| {
            let (multipliers, levels) = bytes.split_at(PANEL);
            let multipliers = bytemuck::cast_slice(multipliers);
            WeightGroup { first, inputs: self.group.min(self.inputs - first), multipliers, levels }
        })
    }

    /// Panels, in the order of outputs.
    pub fn panels_of(self, bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
        bytes.chunks_exact(self.panel_bytes().max(1))
    }

    /// The bytes of levels `[inputs, outputs]` and multipliers `[groups, outputs]`.
    ///
    /// Panics if there are not so many: a precondition of the caller.
    pub fn pack(self, levels: &[i8], multipliers: &[i8]) -> Vec<u8> {
        let Self { inputs, outputs, group } = self;
        assert_eq!((levels.len(), multipliers.len()), (inputs * outputs, self.groups() * outputs), "{self:?}");
        let mut bytes = vec![ZEROS; self.bytes()];
        let whole = PANEL + group / GROUP_STEP * BLOCK;
        for (p, panel) in bytes.chunks_exact_mut(self.panel_bytes().max(1)).enumerate() {
            let (from, width) = (p * PANEL, PANEL.min(outputs - p * PANEL));
            for (g, bytes) in panel.chunks_mut(whole).enumerate() {
                let (own, bytes) = bytes.split_at_mut(PANEL);
                own.fill(0);
                own[..width].copy_from_slice(bytemuck::cast_slice(&multipliers[g * outputs + from..][..width]));
                for i in 0..group.min(inputs - g * group) {
                    let row = &levels[(g * group + i) * outputs + from..][..width];
                    for (o, level) in row.iter().enumerate() {
                        let (byte, level) = (&mut bytes[place(i, o)], (level - LEVEL_LEAST) as u8 & 0xf);
                        *byte = if is_high(i) { *byte & 0x0f | level << 4 } else { *byte & 0xf0 | level };
                    }
                }
            }
        }
        bytes
    }

    /// Levels `[inputs, outputs]` and multipliers `[groups, outputs]`.
    pub fn unpack(self, bytes: &[u8]) -> [Vec<i8>; 2] {
        let m = self.outputs;
        let (mut levels, mut multipliers) = (vec![0; self.inputs * m], vec![0; self.groups() * m]);
        for (p, panel) in self.panels_of(bytes).enumerate() {
            let (from, width) = (p * PANEL, PANEL.min(m - p * PANEL));
            for (g, group) in self.groups_of(panel).enumerate() {
                multipliers[g * m + from..][..width].copy_from_slice(&group.multipliers[..width]);
                for i in 0..group.inputs {
                    let row = &mut levels[(group.first + i) * m + from..][..width];
                    row.iter_mut().enumerate().for_each(|(o, level)| *level = group.level(i, o));
                }
            }
        }
        [levels, multipliers]
    }

    /// The elements, `[inputs, outputs]`.
    pub fn elements(self, bytes: &[u8]) -> Vec<i32> {
        let [levels, multipliers] = self.unpack(bytes);
        let one = |(at, &level): (usize, &i8)| {
            let (input, output) = (at / self.outputs, at % self.outputs);
            i32::from(level) * i32::from(multipliers[input / self.group * self.outputs + output])
        };
        levels.iter().enumerate().map(one).collect()
    }

    /// Whether what is beyond the last input and output is as `pack` leaves it.
    pub fn has_padding(self, bytes: &[u8]) -> bool {
        self.panels_of(bytes).enumerate().all(|(p, panel)| {
            let width = PANEL.min(self.outputs - p * PANEL);
            self.groups_of(panel).all(|group| is_padded(group, width))
        })
    }

    /// Whether every multiplier is one, which -128 is not.
    pub fn has_multipliers(self, bytes: &[u8]) -> bool {
        let sound = |group: WeightGroup<'_>| group.multipliers.iter().all(|&x| x >= -MULTIPLIER_MOST);
        self.panels_of(bytes).all(|panel| self.groups_of(panel).all(sound))
    }
}

fn is_padded(group: WeightGroup<'_>, width: usize) -> bool {
    let padded = group.inputs.next_multiple_of(GROUP_STEP);
    if width == PANEL && padded == group.inputs {
        return true;
    }
    let is_zero = |from: usize, o: usize| (from..padded).all(|i| group.level(i, o) == 0);
    group.multipliers[width..].iter().all(|&x| x == 0)
        && (width..PANEL).all(|o| is_zero(0, o))
        && (0..width).all(|o| is_zero(group.inputs, o))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn bytes_say_what_levels_and_multipliers_say() {
        let mut random = SplitMix64(5);
        for (k, m, group) in [(1, 1, 8), (3, 64, 8), (9, 65, 8), (37, 130, 16), (64, 7, 32), (33, 64, 32), (40, 3, 24)]
        {
            let sizes = GroupedSizes::new(&[k, m], group).expect("a matrix");
            let levels: Vec<i8> = (0..k * m).map(|_| (random.bits() % 16) as i8 - 8).collect();
            let multipliers: Vec<i8> = (0..sizes.groups() * m).map(|_| (random.bits() % 255) as u8 as i8).collect();
            let multipliers: Vec<i8> = multipliers.into_iter().map(|x| x.max(-127)).collect();
            let bytes = sizes.pack(&levels, &multipliers);
            assert_eq!(bytes.len(), sizes.bytes());
            assert!(sizes.has_padding(&bytes) && sizes.has_multipliers(&bytes));
            let elements = sizes.elements(&bytes);
            assert_eq!(sizes.unpack(&bytes), [levels.clone(), multipliers.clone()]);
            for (at, element) in elements.into_iter().enumerate() {
                let multiplier = multipliers[at / m / usize::from(group) * m + at % m];
                assert_eq!(element, i32::from(levels[at]) * i32::from(multiplier), "{k} by {m}, element {at}");
            }
        }
    }

    #[test]
    fn what_is_beyond_the_matrix_is_fixed() {
        let sizes = GroupedSizes::new(&[3, 2], 8).expect("a matrix");
        let bytes = sizes.pack(&[1; 6], &[1; 2]);
        assert_eq!(bytes.len(), 64 + 256);
        // A multiplier beyond the outputs, a level beyond the inputs, a level beyond the outputs.
        for (at, byte) in [(2, 1), (64 + 3, 0x87), (64 + 8, 0x89)] {
            let mut other = bytes.clone();
            other[at] = byte;
            assert!(!sizes.has_padding(&other), "byte {at}");
        }
        let mut other = bytes.clone();
        other[0] = 0x80;
        assert!(sizes.has_padding(&other) && !sizes.has_multipliers(&other) && sizes.has_multipliers(&bytes));
    }

    #[test]
    fn groups_are_of_8_to_32_inputs() {
        let possible: Vec<u16> = (0..70).filter(|&group| GroupedSizes::new(&[64, 64], group).is_some()).collect();
        assert_eq!(possible, [8, 16, 24, 32]);
        assert!(GroupedSizes::new(&[64], 32).is_none());
        assert!(
            GroupedSizes::new(&[usize::MAX, 64], 32).is_none() && GroupedSizes::new(&[64, usize::MAX], 32).is_none()
        );
    }
}
