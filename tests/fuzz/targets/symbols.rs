//! The symbol table, as a module and from an ELF file: each address that has a name has it in a
//! table that is made of the names.
#![no_main]

use fuzz::Input;
use kernel::log::symbols::{KernelSymbols, build, from_elf};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(symbols) = KernelSymbols::parse(bytes) {
        let base = bytes.get(8..16).and_then(|base| base.first_chunk());
        let base = base.map_or(0, |base| u64::from_le_bytes(*base));
        for offset in [0, 1, 16, 0xffff_ffff, 1 << 32] {
            if let Some((_, distance)) = symbols.lookup(base.wrapping_add(offset)) {
                assert!(distance <= offset);
            }
        }
    }
    if let Some(module) = from_elf(bytes) {
        assert!(KernelSymbols::parse(&module).is_some());
    }
    let input = &mut Input::new(bytes);
    let mut names = Vec::new();
    while !input.is_empty() {
        let (at, len) = (input.u64(), input.u8() & 15);
        names.push((at, String::from_utf8_lossy(input.bytes(len.into())).into_owned()));
    }
    let module = build(names.clone());
    let symbols = KernelSymbols::parse(&module).expect("it was just made");
    let base = names.iter().map(|(at, _)| *at).min().unwrap_or(0);
    for (at, _) in names.iter().filter(|(at, _)| at - base <= u64::from(u32::MAX)) {
        let first = names.iter().find(|(other, _)| other == at).map(|(_, name)| (name.as_str(), 0));
        assert_eq!(symbols.lookup(*at), first);
    }
});
