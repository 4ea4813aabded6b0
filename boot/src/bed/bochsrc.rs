//! Bochs' configuration of a machine.

/// The program to start.
pub(super) const PROGRAM: &str = "bochs-bin";

/// VMX with EPT, unrestricted guest, VPID and A/D bits: the default model.
const USUAL_CPU: &str = "corei7_haswell_4770";

/// Emulated instructions a second of emulated time.
pub(super) const IPS: u32 = 50_000_000;

/// Returns the configuration of a machine that boots the GRUB ISO `boot.iso` as CD and whose serial
/// lines are at `ports`.
pub(super) fn bochsrc(cpu: Option<&str>, cpus: u32, ips: u32, mib: u64, ports: &[u16]) -> String {
    let cpu = cpu.unwrap_or(USUAL_CPU);
    let line = |(n, port): (usize, &u16)| {
        format!("com{}: enabled=1, mode=socket-client, dev=127.0.0.1:{port}\n", n + 1)
    };
    let lines: String = ports.iter().enumerate().map(line).collect();
    // A sound driver is named because the default one overruns a buffer where there is no sound
    // card.
    format!(
        "config_interface: textconfig\ndisplay_library: rfb, options=\"timeout=0\"\nromimage: \
         file=/usr/share/bochs/BIOS-bochs-latest\nvgaromimage: \
         file=/usr/share/bochs/VGABIOS-lgpl-latest\nmemory: guest={mib}, host={mib}\ncpu: \
         model={cpu}, count={cpus}, ips={ips}, reset_on_triple_fault=0\nclock: sync=none, \
         time0=1700000000\nata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\nata0-master: \
         type=cdrom, path=boot.iso, status=inserted\nboot: cdrom\n{lines}log: bochs.log\npanic: \
         action=fatal\nerror: action=report\ninfo: action=report\ndebug: action=ignore\nmouse: \
         enabled=0\nspeaker: enabled=0\nsound: waveoutdrv=dummy, waveout=none, waveindrv=dummy, \
         wavein=none, midioutdrv=dummy, midiout=none\n"
    )
}
