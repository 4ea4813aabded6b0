//! A configuration file: a plan fits its machine, and its module is read by the hypervisor as it
//! was written. An error names the file.
#![no_main]

use boot::bed::Bed;
use boot::config::check_text;
use boot::size;
use kernel::config::Config;
use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;

/// A folder with a kernel that a configuration may name.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join("tidepool-fuzz-configuration");
    std::fs::create_dir_all(&folder).expect("the folder for temporary files is writable");
    std::fs::write(folder.join("kernel"), fuzz::kernels::pvh()).expect("it is writable");
    folder
});

fuzz_target!(|text: &str| {
    for bed in [Bed::Qemu, Bed::Bochs] {
        match check_text("f.toml", text, &FOLDER, bed) {
            Err(error) => assert!(format!("{error:#}").contains("f.toml"), "{error:#}"),
            Ok(plan) => {
                assert!(plan.machine_mib << 20 > plan.config.pool_bytes);
                assert!((1..=8).contains(&plan.cpus));
                let module = plan.config.to_module();
                assert_eq!(Config::from_module(&module), Ok(plan.config));
            }
        }
    }
    if let Ok(bytes) = size::parse(text) {
        assert_eq!(size::parse(&size::format(bytes)), Ok(bytes));
    }
});
