//! The instruction decoder: a complete decoder agrees on the length, and the length is what
//! counts.
#![no_main]

use iced_x86::{Code, Decoder, DecoderOptions};
use kernel::partition::decode::{CodeSize, DecodeError, MAX_LENGTH, decode};
use libfuzzer_sys::fuzz_target;

const SIZES: [(CodeSize, u32); 3] =
    [(CodeSize::Bits16, 16), (CodeSize::Bits32, 32), (CodeSize::Bits64, 64)];

fuzz_target!(|bytes: &[u8]| {
    for (size, bits) in SIZES {
        let ours = decode(bytes, size);
        let len = match ours {
            Ok(instruction) => usize::from(instruction.length),
            Err(DecodeError::Truncated) => {
                assert!(bytes.len() < MAX_LENGTH);
                continue;
            }
            Err(DecodeError::Unknown) => continue,
        };
        assert!((1..=MAX_LENGTH).contains(&len) && len <= bytes.len());
        assert_eq!(decode(&bytes[..len], size), ours);
        for shorter in 0..len {
            assert_eq!(decode(&bytes[..shorter], size), Err(DecodeError::Truncated));
        }
        let theirs = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
        if theirs.code() != Code::INVALID {
            assert_eq!(len, theirs.len(), "{:?}", theirs.code());
        }
    }
});
