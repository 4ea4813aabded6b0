//! The compiled configuration: a module that can be read is written as it was read.
#![no_main]

use kernel::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Config::from_module(bytes);
    let mut module = b"TPCF".to_vec();
    module.extend((bytes.len() as u32).to_le_bytes());
    module.extend(bytes);
    if let Ok(config) = Config::from_module(&module) {
        assert_eq!(Config::from_module(&config.to_module()), Ok(config));
    }
});
