//! f32 operations of which the order is part of their meaning, in ONNX's operators: so every runtime gives the same bits that
//! snnc's engines do. A runtime has an order of its own for a sum over an axis, but none for sums of two numbers, and `CumSum`
//! adds one after the other.

use super::builder::{FLOAT, INT64, OnnxBuilder, ValueName, int};
use snnc_ir::curve::{Curve, TABLE_DENSITY, TABLE_LEN, TABLE_REACH};
use snnc_ir::eval::LANES;
use snnc_ir::hadamard::{HadamardMatrix, HadamardSize};

impl OnnxBuilder {
    /// The sum of each row of `width` numbers in the order of `snnc_ir::eval::row_sum`; one number stays. `lead` are the sizes before a
    /// row's, as `Reshape` has them.
    pub fn row_sum(&mut self, x: &str, lead: &[i64], width: usize) -> ValueName {
        let missing = width.next_multiple_of(LANES) - width;
        let mut x = x.to_string();
        if missing > 0 {
            let zero = self.number(0.0);
            let places = self.places(0, missing.min(width));
            let some = self.gather(&x, &places, -1);
            let zeros = self.plain("Mul", &[&some, &zero]);
            let mut all = vec![x.as_str()];
            let mut left = missing;
            // A row may be shorter than what it lacks.
            while left > 0 {
                all.push(&zeros);
                left = left.saturating_sub(width);
            }
            let joined = self.op("Concat", &all, vec![int("axis", -1)]);
            let whole = self.places(0, width + missing);
            x = self.gather(&joined, &whole, -1);
        }
        let rounds = (width + missing) / LANES;
        let mut sizes = lead.to_vec();
        sizes.extend([rounds as i64, LANES as i64]);
        let lanes = self.reshape(&x, &sizes);
        let mut sums = self.chain(&lanes, rounds);
        for half in [8, 4, 2, 1] {
            let [low, high] = [0, half].map(|start| {
                let places = self.places(start, half);
                self.gather(&sums, &places, -1)
            });
            sums = self.plain("Add", &[&low, &high]);
        }
        sums
    }

    /// The sum over the axis before the last, which has `count` elements, one after the other. The axis goes.
    fn chain(&mut self, x: &str, count: usize) -> ValueName {
        let (axis, last) = (self.int(-2), self.int(count as i64 - 1));
        let sums = self.plain("CumSum", &[x, &axis]);
        self.gather(&sums, &last, -2)
    }

    /// The integers from `start` on.
    fn places(&mut self, start: usize, count: usize) -> ValueName {
        let places: Vec<i64> = (start as i64..(start + count) as i64).collect();
        self.ints(&places)
    }

    /// A curve as a neuron evaluates it: by its table.
    pub fn curve_by_table(&mut self, curve: Curve, h: &str) -> ValueName {
        let table = curve.table();
        let samples = &table[..TABLE_LEN - 2];
        let slopes: Vec<f32> = samples.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let (samples, slopes) =
            (self.f32(&[slopes.len()], &samples[..slopes.len()]), self.f32(&[slopes.len()], &slopes));
        let [reach, below_reach, density] = [TABLE_REACH, -TABLE_REACH, TABLE_DENSITY].map(|x| self.number(x));
        let (below, above) = (self.number(table[TABLE_LEN - 2]), self.number(table[TABLE_LEN - 1]));
        let (zero, last) = (self.int(0), self.int(TABLE_LEN as i64 - 4));
        let is_above = self.plain("GreaterOrEqual", &[h, &reach]);
        let is_below = self.plain("LessOrEqual", &[h, &below_reach]);
        let shifted = self.plain("Add", &[h, &reach]);
        let place = self.plain("Mul", &[&shifted, &density]);
        let index = self.cast(&place, INT64);
        let index = self.plain("Min", &[&index, &last]);
        let index = self.plain("Max", &[&index, &zero]);
        let whole = self.cast(&index, FLOAT);
        let fraction = self.plain("Sub", &[&place, &whole]);
        let (sample, slope) = (self.gather(&samples, &index, 0), self.gather(&slopes, &index, 0));
        let rise = self.plain("Mul", &[&fraction, &slope]);
        let inside = self.plain("Add", &[&sample, &rise]);
        let (low, high) = (self.plain("Mul", &[h, &below]), self.plain("Mul", &[h, &above]));
        let y = self.plain("Where", &[&is_below, &low, &inside]);
        self.plain("Where", &[&is_above, &high, &y])
    }

    /// A curve by its formula: `silu` in the order of `snnc_ir::curve_f32`, GELUs by the runtime's own functions.
    pub fn curve(&mut self, curve: Curve, x: &str) -> ValueName {
        match curve {
            Curve::Identity => x.into(),
            Curve::Relu => self.plain("Relu", &[x]),
            Curve::Silu => self.silu(x),
            Curve::GeluQuick => {
                let by = self.number(1.702);
                let inner = self.plain("Mul", &[x, &by]);
                let open = self.plain("Sigmoid", &[&inner]);
                self.plain("Mul", &[x, &open])
            }
            Curve::GeluTanh => {
                let (cubic, root) = (self.number(0.044_715), self.number(0.797_884_6));
                let square = self.plain("Mul", &[x, x]);
                let cube = self.plain("Mul", &[&square, x]);
                let bend = self.plain("Mul", &[&cube, &cubic]);
                let sum = self.plain("Add", &[x, &bend]);
                let inner = self.plain("Mul", &[&sum, &root]);
                let inner = self.plain("Tanh", &[&inner]);
                self.half_opened(x, &inner)
            }
            Curve::GeluErf => {
                let by = self.number(std::f32::consts::FRAC_1_SQRT_2);
                let inner = self.plain("Mul", &[x, &by]);
                let inner = self.plain("Erf", &[&inner]);
                self.half_opened(x, &inner)
            }
        }
    }

    /// `x / (1 + e^-x)` in f32.
    fn silu(&mut self, x: &str) -> ValueName {
        const FAR: f32 = 150.0;
        const LN2: [f32; 2] = [0.693_145_75, 1.428_606_8e-6];
        const WHOLE: f32 = 12_582_912.0;
        const EXP: [f32; 5] = [0.5, 0.166_665_15, 0.041_666_26, 0.008_369_233, 0.001_394_655_3];
        const SMALL: i32 = 100;
        // Powers that occur: those of `FAR`.
        let powers = 0..=(FAR * std::f32::consts::LOG2_E) as i32 + 1;
        let first: Vec<f32> = powers.clone().map(|power| libm::exp2f(-power.min(SMALL) as f32)).collect();
        let second: Vec<f32> = powers.map(|power| libm::exp2f((power.min(SMALL) - power) as f32)).collect();
        let (first, second) = (self.f32(&[first.len()], &first), self.f32(&[second.len()], &second));
        let [far, log2_e, whole, one, two, zero] =
            [FAR, std::f32::consts::LOG2_E, WHOLE, 1.0, 2.0, 0.0].map(|x| self.number(x));
        let [ln2_high, ln2_low] = LN2.map(|x| self.number(x));
        let magnitude = self.plain("Abs", &[x]);
        let far = self.plain("Min", &[&magnitude, &far]);
        let scaled = self.plain("Mul", &[&far, &log2_e]);
        let shifted = self.plain("Add", &[&scaled, &whole]);
        let k = self.plain("Sub", &[&shifted, &whole]);
        let power = self.cast(&k, INT64);
        let (high, low) = (self.plain("Mul", &[&k, &ln2_high]), self.plain("Mul", &[&k, &ln2_low]));
        let r = self.plain("Sub", &[&far, &high]);
        let r = self.plain("Sub", &[&r, &low]);
        let is_negative = self.plain("Less", &[x, &zero]);
        let turned = self.plain("Neg", &[&r]);
        let r = self.plain("Where", &[&is_negative, &r, &turned]);
        let mut p = self.number(EXP[4]);
        for c in EXP[..4].iter().rev() {
            let (c, product) = (self.number(*c), self.plain("Mul", &[&r, &p]));
            p = self.plain("Add", &[&c, &product]);
        }
        let square = self.plain("Mul", &[&r, &r]);
        let bend = self.plain("Mul", &[&square, &p]);
        let rest = self.plain("Add", &[&r, &bend]);
        let s = self.gather(&first, &power, 0);
        let small = self.plain("Mul", &[&s, &rest]);
        let rest = self.plain("Where", &[&is_negative, &rest, &small]);
        let near = self.plain("Add", &[&two, &rest]);
        let sum = self.plain("Add", &[&s, &rest]);
        let sum = self.plain("Add", &[&one, &sum]);
        let is_near = self.plain("Equal", &[&k, &zero]);
        let denominator = self.plain("Where", &[&is_near, &near, &sum]);
        let negative = self.plain("Neg", &[&far]);
        let numerator = self.plain("Where", &[&is_negative, &negative, x]);
        let y = self.plain("Div", &[&numerator, &denominator]);
        let left = self.gather(&second, &power, 0);
        let faded = self.plain("Mul", &[&y, &s]);
        let faded = self.plain("Mul", &[&faded, &left]);
        self.plain("Where", &[&is_negative, &faded, &y])
    }

    /// `0.5 x (1 + inner)`.
    fn half_opened(&mut self, x: &str, inner: &str) -> ValueName {
        let (one, half) = (self.number(1.0), self.number(0.5));
        let open = self.plain("Add", &[inner, &one]);
        let x = self.plain("Mul", &[x, &half]);
        self.plain("Mul", &[&x, &open])
    }

    /// Blocks of rows of `width` numbers times a Hadamard matrix, in the order of `HadamardMatrix::apply`.
    pub fn hadamard(&mut self, x: &str, size: HadamardSize, width: usize) -> ValueName {
        let (order, part) = (size.order as usize, 1usize << size.power);
        let scale = self.number(size.scale() as f32);
        let blocks = (width / size.block()) as i64;
        let mut y = match order {
            1 => x.to_string(),
            _ => {
                let signs = HadamardMatrix::of(size)
                    .signs()
                    .iter()
                    .map(|&negative| if negative { -1.0 } else { 1.0 })
                    .collect::<Vec<f32>>();
                let signs = self.f32(&[order, order, 1], &signs);
                let x = self.reshape(x, &[0, 0, blocks, 1, order as i64, part as i64]);
                let parts = self.plain("Mul", &[&x, &signs]);
                self.chain(&parts, order)
            }
        };
        y = self.plain("Mul", &[&y, &scale]);
        let (first, second) = (self.int(0), self.int(1));
        for stage in 0..size.power {
            let half = 1i64 << stage;
            let pairs = self.reshape(&y, &[0, 0, -1, 2, half]);
            let (a, b) = (self.gather(&pairs, &first, -2), self.gather(&pairs, &second, -2));
            let (sum, difference) = (self.plain("Add", &[&a, &b]), self.plain("Sub", &[&a, &b]));
            y = self.op("Concat", &[&sum, &difference], vec![int("axis", -1)]);
        }
        self.reshape(&y, &[0, 0, width as i64])
    }
}
