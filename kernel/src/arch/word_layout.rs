//! Checks where the fields of a hardware word lie.

use core::fmt::Debug;
use core::ops::Not;

/// Asserts that a field covers exactly the bits of `mask`: alone at its largest value `most`, in a
/// word of zeros and in a word of ones.
#[track_caller]
pub fn assert_field<Bits, Word, Value>(
    mask: Bits,
    most: Value,
    with: fn(Word, Value) -> Word,
    get: fn(&Word) -> Value,
) where
    Bits: Copy + Debug + PartialEq + Not<Output = Bits> + From<u8> + From<Word>,
    Word: From<Bits>,
    Value: Copy + Debug + PartialEq + Default,
{
    let bits = |word: Word| Bits::from(word);
    let (zeros, nothing) = (Bits::from(0u8), Value::default());
    assert_eq!(bits(with(Word::from(zeros), most)), mask, "alone in a word of zeros");
    assert_eq!(bits(with(Word::from(!zeros), nothing)), !mask, "alone in a word of ones");
    assert_eq!((get(&Word::from(mask)), get(&Word::from(!mask))), (most, nothing), "read back");
    assert_eq!(bits(with(Word::from(!zeros), most)), !zeros, "the other bits keep their values");
}
