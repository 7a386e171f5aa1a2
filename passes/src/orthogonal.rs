//! Orthogonal matrices that spread every channel over all of them: Hadamard matrices `H(order) x H(2^power)`.
//!
//! A Hadamard matrix has entries of 1 and -1 and rows at right angles. Those of order `2^power` are Sylvester's, those of an order
//! that is no power of two are Paley's (1933), from the squares of a field of `q` elements: `q + 1` where `q` leaves 3 over a
//! multiple of 4, else `2 (q + 1)`. Everything is made in f64, in one order, so that it is the same on every machine.

/// The largest order that is not Sylvester's: a vector's product takes `order` additions per number.
const ORDER_MAX: usize = 256;

/// The orthonormal matrix `H(order) x H(2^power) / sqrt(order * 2^power)`, a Kronecker product. Channel `a * 2^power + b` is at `(a, b)`.
///
/// ```
/// use snnc_passes::orthogonal::Transform;
///
/// assert_eq!(Transform::of(1536), Transform { order: 12, power: 7 });
/// assert_eq!(Transform::of(576).width(), 576);
/// // Blocks of 4, where no larger matrix divides the width.
/// assert_eq!(Transform::of(92).width(), 4);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transform {
    /// The order of Paley's factor; 1 without one.
    pub order: usize,
    /// The power of two of Sylvester's factor.
    pub power: u32,
}

impl Transform {
    /// The largest that divides rows of `width` numbers into blocks; for most widths of networks that is all of them.
    pub fn of(width: usize) -> Transform {
        let blocks = (1..=width.max(1)).filter(|blocks| width.is_multiple_of(*blocks));
        blocks.map(|blocks| width / blocks).find_map(Self::exactly).unwrap_or(Transform { order: 1, power: 0 })
    }

    /// The one of this width with the smallest order, if there is one.
    fn exactly(width: usize) -> Option<Transform> {
        let twos = width.trailing_zeros().min(usize::BITS - 1);
        let odd = width >> twos;
        let order = (0..=twos).map(|power| odd << power).find(|&order| order == 1 || Paley::of(order).is_some())?;
        Some(Transform { order, power: (width / order).trailing_zeros() })
    }

    /// How many numbers a block has.
    pub fn width(&self) -> usize {
        self.order << self.power
    }

    /// The matrix, row by row.
    pub fn matrix(&self) -> Vec<f64> {
        let product = Product::new(*self);
        let n = self.width();
        let mut matrix = vec![0.0; n * n];
        for (i, row) in matrix.chunks_exact_mut(n).enumerate() {
            row[i] = 1.0;
            product.apply(row);
        }
        matrix
    }
}

/// The product of a vector with the matrix of a transform, by additions: `2^power` and `order` factors of it one after the other.
#[derive(Clone, Debug)]
pub struct Product {
    transform: Transform,
    /// `H(order)`, row by row: 1 and -1.
    signs: Vec<f64>,
    scale: f64,
}

impl Product {
    /// With the matrix of this transform.
    pub fn new(transform: Transform) -> Self {
        let signs = Paley::of(transform.order).map_or_else(|| vec![1.0], |paley| paley.matrix());
        Self { transform, signs, scale: 1.0 / (transform.width() as f64).sqrt() }
    }

    /// Every block of `vector` times the matrix. The vector has a whole number of blocks.
    pub fn apply(&self, vector: &mut [f64]) {
        for block in vector.chunks_exact_mut(self.transform.width().max(1)) {
            let part = 1 << self.transform.power;
            block.chunks_exact_mut(part).for_each(butterflies);
            if self.transform.order > 1 {
                self.across(block, part);
            }
            block.iter_mut().for_each(|x| *x *= self.scale);
        }
    }

    /// The parts of a block among each other, by the factor of Paley.
    fn across(&self, block: &mut [f64], part: usize) {
        let before = block.to_vec();
        block.fill(0.0);
        for (a, x) in before.chunks_exact(part).enumerate() {
            for (b, sum) in block.chunks_exact_mut(part).enumerate() {
                let sign = self.signs[a * self.transform.order + b];
                sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += sign * x);
            }
        }
    }
}

/// A vector times Sylvester's matrix, whose order is the vector's length: `n log n` additions.
fn butterflies(vector: &mut [f64]) {
    let mut half = 1;
    while half < vector.len() {
        for pair in vector.chunks_exact_mut(2 * half) {
            let (left, right) = pair.split_at_mut(half);
            for (a, b) in left.iter_mut().zip(right) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

/// How Paley's construction makes a matrix of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Paley {
    field: FiniteField,
    /// Twice as large: of fields with `q` one more than a multiple of 4.
    double: bool,
}

impl Paley {
    fn of(order: usize) -> Option<Paley> {
        if !(12..=ORDER_MAX).contains(&order) || !order.is_multiple_of(4) {
            return None;
        }
        let single = FiniteField::of(order - 1)
            .filter(|field| field.size() % 4 == 3)
            .map(|field| Paley { field, double: false });
        let double = || FiniteField::of(order / 2 - 1).filter(|field| field.size() % 4 == 1);
        single.or_else(|| double().map(|field| Paley { field, double: true }))
    }

    /// Entries of 1 and -1, row by row.
    fn matrix(self) -> Vec<f64> {
        let n = self.field.size() + 1;
        // The conference matrix: 0 on the diagonal, else 1 and -1, rows at right angles.
        let entry = |i: usize, j: usize| match (i, j) {
            (0, 0) => 0,
            (0, _) => 1,
            (_, 0) => {
                if self.double {
                    1
                } else {
                    -1
                }
            }
            _ => self.field.character(i - 1, j - 1),
        };
        if !self.double {
            let of = |at: usize| f64::from(entry(at / n, at % n) + i32::from(at / n == at % n));
            return (0..n * n).map(of).collect();
        }
        let of = |at: usize| {
            let (i, j) = (at / (2 * n), at % (2 * n));
            let (conference, lower) = (entry(i / 2, j / 2), (i % 2, j % 2));
            let sign = |wanted: bool| if wanted { 1 } else { -1 };
            let diagonal = if i / 2 == j / 2 { sign(lower == (0, 0)) } else { 0 };
            f64::from(conference * sign(lower != (1, 1)) + diagonal)
        };
        (0..4 * n * n).map(of).collect()
    }
}

/// A field of `p` or of `p * p` elements, with an odd prime `p`. Element `a + p b` is `a + b s`, where the square of `s` is no square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FiniteField {
    p: usize,
    squared: bool,
}

impl FiniteField {
    fn of(size: usize) -> Option<FiniteField> {
        let prime = |p: usize| p > 2 && (2..p).take_while(|d| d * d <= p).all(|d| !p.is_multiple_of(d));
        let root = (2..size).find(|root| root * root >= size).unwrap_or(size);
        if prime(size) {
            Some(FiniteField { p: size, squared: false })
        } else {
            (root * root == size && prime(root)).then_some(FiniteField { p: root, squared: true })
        }
    }

    fn size(self) -> usize {
        if self.squared { self.p * self.p } else { self.p }
    }

    /// 1 where `x - y` is a square, -1 where it is none, 0 where the two are equal.
    fn character(self, x: usize, y: usize) -> i32 {
        let p = self.p;
        let minus = |x: usize, y: usize| (x % p + p - y % p) % p;
        let (a, b) = (minus(x, y), minus(x / p, y / p));
        if !self.squared {
            return self.legendre(a);
        }
        // An element is a square where its norm is one of the field of p elements.
        let none = (2..p).find(|&n| self.legendre(n) == -1).unwrap_or(0);
        if (a, b) == (0, 0) { 0 } else { self.legendre((a * a + (p - none) * (b * b % p)) % p) }
    }

    /// Of the field of `p` elements: whether an element is a square.
    fn legendre(self, a: usize) -> i32 {
        match a % self.p {
            0 => 0,
            a if (1..self.p).any(|x| x * x % self.p == a) => 1,
            _ => -1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_of_networks_are_one_block() {
        for (width, order, power) in [
            (1, 1, 0),
            (64, 1, 6),
            (20, 20, 0),
            (36, 36, 0),
            (100, 100, 0),
            (576, 36, 4),
            (768, 12, 6),
            (896, 28, 5),
            (960, 60, 4),
            (1536, 12, 7),
            (1600, 100, 4),
            (5120, 20, 8),
        ] {
            assert_eq!(Transform::of(width), Transform { order, power }, "{width}");
        }
        for (width, block) in [(3, 1), (50, 2), (92, 4), (11008, 256)] {
            assert_eq!(Transform::of(width).width(), block, "{width}");
        }
    }

    #[test]
    fn every_matrix_is_orthonormal_and_spreads_every_channel() {
        for width in (1..=128).chain([144, 192, 200, 256]) {
            let transform = Transform::of(width);
            let (n, matrix) = (transform.width(), transform.matrix());
            for (i, row) in matrix.chunks(n).enumerate() {
                let even = |x: &f64| (x.abs() * (n as f64).sqrt() - 1.0).abs() < 1e-12;
                assert!(row.iter().all(even), "{width}: row {i} is {row:?}");
                for (j, other) in matrix.chunks(n).enumerate() {
                    let dot: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
                    assert!((dot - f64::from(i == j)).abs() < 1e-12, "{width}: rows {i} and {j} give {dot}");
                }
            }
        }
    }

    #[test]
    fn the_fast_product_is_that_with_the_matrix() {
        for width in [8, 12, 20, 36, 48, 72] {
            let transform = Transform::of(width);
            let (n, matrix) = (transform.width(), transform.matrix());
            let vector: Vec<f64> = (0..n).map(|i| (i * i % 17) as f64 - 8.0).collect();
            let mut fast = vector.clone();
            Product::new(transform).apply(&mut fast);
            for (j, fast) in fast.iter().enumerate() {
                let slow: f64 = vector.iter().enumerate().map(|(i, x)| x * matrix[i * n + j]).sum();
                assert!((slow - fast).abs() < 1e-12, "{width}: {slow} and {fast}");
            }
        }
    }
}
