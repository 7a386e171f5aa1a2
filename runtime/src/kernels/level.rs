//! What potentials and levels are stored in.

use std::borrow::Cow;

/// What a potential is made of.
pub trait Potential: Copy + sealed::Sealed {
    fn to_f32(self) -> f32;
}

/// What a level is stored in.
pub trait StoredLevel: Copy + sealed::Sealed {
    /// The largest level.
    const MOST: i32;
    fn to_i32(self) -> i32;
    /// The low bits.
    fn from_i32(level: i32) -> Self;
    fn to_i16(self) -> i16;
    /// Bits of its magnitude.
    fn bits(self) -> u8;
    /// Whether both have one magnitude.
    fn is_as_large(self, other: Self) -> bool;
    /// Levels of 8 bits as they are.
    fn narrow(levels: &[Self]) -> Option<&[i8]>;
    /// Levels in 16 bits.
    fn wide(levels: &[Self]) -> Cow<'_, [i16]>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for i32 {}
    impl Sealed for i8 {}
    impl Sealed for i16 {}
}

impl Potential for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Potential for i32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self as f32
    }
}

macro_rules! level {
    ($elem:ty, $narrow:expr, $wide:expr) => {
        impl StoredLevel for $elem {
            const MOST: i32 = <$elem>::MAX as i32;
            #[inline(always)]
            fn to_i32(self) -> i32 {
                self.into()
            }
            #[inline(always)]
            fn from_i32(level: i32) -> Self {
                level as $elem
            }
            #[inline(always)]
            fn to_i16(self) -> i16 {
                self.into()
            }
            #[inline(always)]
            fn bits(self) -> u8 {
                self.unsigned_abs().count_ones() as u8
            }
            #[inline(always)]
            fn is_as_large(self, other: Self) -> bool {
                self.unsigned_abs() == other.unsigned_abs()
            }
            #[inline(always)]
            fn narrow(levels: &[Self]) -> Option<&[i8]> {
                $narrow(levels)
            }
            #[inline(always)]
            fn wide(levels: &[Self]) -> Cow<'_, [i16]> {
                $wide(levels)
            }
        }
    };
}
level!(i8, Some, |levels: &[i8]| Cow::Owned(levels.iter().map(|&level| level.into()).collect()));
level!(i16, |_| None, Cow::Borrowed);
