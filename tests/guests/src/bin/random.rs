//! Drives the entropy device on its PCI bus: `requests=N` buffers in `pages=N` pages, each of which
//! shows zeros before. Then it breaks the device's rules in every way, and the device has to work
//! again after a reset each time.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(target_os = "none")]
use guests::virtio::{self, NEEDS_RESET, SIZE, VirtioDriver, field, get, put};
#[cfg(target_os = "none")]
use guests::{TestVerdict, instr};

/// Any vector that `trap` has a stub for.
#[cfg(target_os = "none")]
const VECTOR: u8 = 0x31;
#[cfg(target_os = "none")]
const PAGE: u64 = 4096;
#[cfg(target_os = "none")]
const NEXT: u16 = 1;
#[cfg(target_os = "none")]
const WRITE: u16 = 2;
#[cfg(target_os = "none")]
const INDIRECT: u16 = 4;
#[cfg(target_os = "none")]
static INTERRUPTS: AtomicU64 = AtomicU64::new(0);

#[cfg(target_os = "none")]
fn run(machine: &guests::Machine) -> TestVerdict {
    guests::trap::handle(|frame| {
        if frame.vector != u64::from(VECTOR) {
            return guests::trap::Handled::No;
        }
        INTERRUPTS.fetch_add(1, Ordering::SeqCst);
        instr::write_apic_eoi();
        guests::trap::Handled::Yes
    });
    instr::write_apic(0xf0, 0x13f);
    guests::check!(virtio::identity() == 0x1044_1af4, "{:#x}", virtio::identity());
    virtio::place(VECTOR);
    let free = machine.free();
    let pages = machine.option("pages").unwrap_or(64).min((free.end - free.start) / PAGE - 1);
    let (ring, buffers) = (free.start, free.start + PAGE);
    let mut driver = VirtioDriver::start(ring);
    let mut last = 0;
    for n in 0..machine.option("requests").unwrap_or(256) {
        // The last bytes of a page, and the first of the next one.
        let page = buffers + n % (pages - 1) * PAGE;
        let at = page + PAGE - 32;
        let is_first = n < pages - 1;
        guests::check!(!is_first || get::<u64>(at + 32) == 0, "page {page:#x} was touched");
        let verdict = request(&mut driver, at, 64);
        if let Err(why) = verdict {
            return guests::fail(why);
        }
        let words: [u64; 8] = core::array::from_fn(|word| get(at + 8 * word as u64));
        guests::check!(words.iter().all(|word| *word != 0 && *word != last), "{words:x?}");
        last = words[7];
        // What the device must not touch.
        guests::check!(get::<u64>(at + 64) == 0 && get::<u64>(page + PAGE / 2) == 0);
        if n % 32 == 31 {
            guests::log!("requests {}", n + 1);
        }
    }
    guests::log!("interrupts {}", INTERRUPTS.load(Ordering::SeqCst));
    abuse(ring, buffers)
}

/// Has a buffer filled, and waits for the interrupt.
#[cfg(target_os = "none")]
fn request(driver: &mut VirtioDriver, at: u64, bytes: u32) -> Result<(), &'static str> {
    driver.describe(0, (at, bytes), (WRITE, 0));
    driver.offer(0);
    let wanted = driver.available();
    while driver.used().0 != wanted {
        // Interrupts are disabled here, so none is lost between the look and the halt.
        instr::sti_hlt();
    }
    if driver.used().1 == bytes { Ok(()) } else { Err("another length was written") }
}

/// A fault of the driver: its name, and what it does to a device that has just started.
#[cfg(target_os = "none")]
type Fault = (&'static str, fn(&mut VirtioDriver, u64));

#[cfg(target_os = "none")]
const FAULTS: &[Fault] = &[
    ("an address without RAM", |driver, _| one(driver, (0xc000_0000, 8), (WRITE, 0))),
    ("the device's own registers", |driver, _| one(driver, (0xc000_8000, 8), (WRITE, 0))),
    ("the local APIC", |driver, _| one(driver, (0xfee0_0000, 8), (WRITE, 0))),
    ("the end of all addresses", |driver, _| one(driver, (u64::MAX - 3, 8), (WRITE, 0))),
    ("a head beyond the table", |driver, _| driver.offer(SIZE)),
    ("a descriptor beyond the table", |driver, at| one(driver, (at, 8), (NEXT, SIZE))),
    ("a loop", |driver, at| one(driver, (at, 8), (NEXT, 0))),
    ("more chains than descriptors", |driver, _| driver.set_index(SIZE + 1)),
    ("an index far ahead", |driver, _| driver.set_index(0x8000)),
    ("an empty table", |driver, at| one(driver, (at, 0), (INDIRECT, 0))),
    ("a table of odd length", |driver, at| one(driver, (at, 17), (INDIRECT, 0))),
    ("a table without RAM", |driver, _| one(driver, (0xd000_0000, 16), (INDIRECT, 0))),
    ("a table in a table", |driver, at| {
        put(at, at);
        put(at + 8, 16_u64 | u64::from(INDIRECT) << 32);
        one(driver, (at, 16), (INDIRECT, 0));
    }),
];

#[cfg(target_os = "none")]
fn one(driver: &mut VirtioDriver, buffer: (u64, u32), flags: (u16, u16)) {
    driver.describe(0, buffer, flags);
    driver.offer(0);
}

#[cfg(target_os = "none")]
fn abuse(ring: u64, buffers: u64) -> TestVerdict {
    for (name, fault) in FAULTS {
        let mut driver = VirtioDriver::start(ring);
        fault(&mut driver, buffers);
        // It may wait for a page first.
        while virtio::read::<u8>(field::STATUS) & NEEDS_RESET == 0 {
            instr::pause();
        }
        guests::check!(driver.used().0 == 0, "{name}: given back");
        let before: u64 = get(buffers);
        driver.offer(0);
        guests::check!(get::<u64>(buffers) == before, "{name}: it still works");
        let mut driver = VirtioDriver::start(ring);
        guests::check!(virtio::read::<u8>(field::STATUS) == 0xf, "{name}: after the reset");
        if let Err(why) = request(&mut driver, buffers, 8) {
            return guests::fail(why);
        }
    }
    guests::log!("faults {}", FAULTS.len());
    registers();
    let mut driver = VirtioDriver::start(ring);
    virtio::place(VECTOR);
    match request(&mut driver, buffers, 4096) {
        Ok(()) => guests::pass(),
        Err(why) => guests::fail(why),
    }
}

/// Writes ones and zeros to every register and every word of the configuration space.
#[cfg(target_os = "none")]
fn registers() {
    for value in [u32::MAX, 0] {
        for at in (0..0x4000).step_by(4) {
            let _: u32 = virtio::read(at);
            virtio::write(at, value);
            virtio::write(at + 1, value as u8);
        }
        // The BAR moves: from here on the registers are elsewhere.
        for at in (0..0x1000).step_by(4) {
            virtio::write_config(at, value);
            let _ = virtio::read_config(at);
        }
        virtio::place(VECTOR);
    }
}
