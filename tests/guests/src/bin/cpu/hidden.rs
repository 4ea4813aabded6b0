//! An instruction whose CPUID bit is clear raises #UD. SDM 2A "Interpreting the Instruction
//! Reference Pages".

use super::{RSI, UNDEFINED, expect, try_with};
use guests::instr::cpuid;

/// The CPUID bit of an instruction: leaf, subleaf, register (EAX to EDX), bit.
type Place = (u32, u32, usize, u32);

/// Instructions that no CPU of ours announces: those of hypervisors, of system management mode, of
/// enclaves.
const NEVER: Option<Place> = None;
const SVM: Option<Place> = Some((0x8000_0001, 0, 2, 2));
const VMX: Option<Place> = Some((1, 0, 2, 5));
const MONITOR: Option<Place> = Some((1, 0, 2, 3));
const WAITPKG: Option<Place> = Some((7, 0, 2, 5));

/// Name, bytes, CPUID bit. Memory operands are at [RSI].
#[rustfmt::skip]
const INSTRUCTIONS: &[(&str, &[u8], Option<Place>)] = &[
    ("INVPCID", &[0x66, 0x0f, 0x38, 0x82, 0x06], Some((7, 0, 1, 10))),
    ("RDTSCP", &[0x0f, 0x01, 0xf9], Some((0x8000_0001, 0, 3, 27))),
    ("RDPID", &[0xf3, 0x0f, 0xc7, 0xf8], Some((7, 0, 2, 22))),
    ("XSAVES", &[0x0f, 0xc7, 0x2e], Some((0xd, 1, 0, 3))),
    ("XRSTORS", &[0x0f, 0xc7, 0x1e], Some((0xd, 1, 0, 3))),
    ("MONITOR", &[0x0f, 0x01, 0xc8], MONITOR),
    ("MWAIT", &[0x0f, 0x01, 0xc9], MONITOR),
    ("MONITORX", &[0x0f, 0x01, 0xfa], Some((0x8000_0001, 0, 2, 29))),
    ("MWAITX", &[0x0f, 0x01, 0xfb], Some((0x8000_0001, 0, 2, 29))),
    ("UMONITOR", &[0xf3, 0x0f, 0xae, 0xf0], WAITPKG),
    ("UMWAIT", &[0xf2, 0x0f, 0xae, 0xf0], WAITPKG),
    ("TPAUSE", &[0x66, 0x0f, 0xae, 0xf0], WAITPKG),
    ("VMXON", &[0xf3, 0x0f, 0xc7, 0x36], VMX),
    ("VMPTRLD", &[0x0f, 0xc7, 0x36], VMX),
    ("VMCLEAR", &[0x66, 0x0f, 0xc7, 0x36], VMX),
    ("VMPTRST", &[0x0f, 0xc7, 0x3e], VMX),
    ("VMREAD", &[0x0f, 0x78, 0xc3], VMX),
    ("VMWRITE", &[0x0f, 0x79, 0xc3], VMX),
    ("VMLAUNCH", &[0x0f, 0x01, 0xc2], VMX),
    ("VMRESUME", &[0x0f, 0x01, 0xc3], VMX),
    ("VMXOFF", &[0x0f, 0x01, 0xc4], VMX),
    ("VMFUNC", &[0x0f, 0x01, 0xd4], VMX),
    ("INVEPT", &[0x66, 0x0f, 0x38, 0x80, 0x06], VMX),
    ("INVVPID", &[0x66, 0x0f, 0x38, 0x81, 0x06], VMX),
    ("VMRUN", &[0x0f, 0x01, 0xd8], SVM),
    ("VMLOAD", &[0x0f, 0x01, 0xda], SVM),
    ("VMSAVE", &[0x0f, 0x01, 0xdb], SVM),
    ("STGI", &[0x0f, 0x01, 0xdc], SVM),
    ("CLGI", &[0x0f, 0x01, 0xdd], SVM),
    ("SKINIT", &[0x0f, 0x01, 0xde], SVM),
    ("INVLPGA", &[0x0f, 0x01, 0xdf], SVM),
    ("GETSEC", &[0x0f, 0x37], Some((1, 0, 2, 6))),
    ("RSM", &[0x0f, 0xaa], NEVER),
    ("PCONFIG", &[0x0f, 0x01, 0xc5], Some((7, 0, 3, 18))),
    ("ENCLS", &[0x0f, 0x01, 0xcf], NEVER),
    ("ENCLU", &[0x0f, 0x01, 0xd7], NEVER),
    ("ENCLV", &[0x0f, 0x01, 0xc0], NEVER),
    ("WRMSRNS", &[0x0f, 0x01, 0xc6], NEVER),
    ("RDPRU", &[0x0f, 0x01, 0xfd], Some((0x8000_0008, 0, 1, 4))),
    ("MCOMMIT", &[0xf3, 0x0f, 0x01, 0xfa], Some((0x8000_0008, 0, 1, 8))),
    ("INVLPGB", &[0x0f, 0x01, 0xfe], Some((0x8000_0008, 0, 1, 3))),
    ("TLBSYNC", &[0x0f, 0x01, 0xff], Some((0x8000_0008, 0, 1, 3))),
    ("CLZERO", &[0x0f, 0x01, 0xfc], Some((0x8000_0008, 0, 1, 0))),
    ("SERIALIZE", &[0x0f, 0x01, 0xe8], Some((7, 0, 3, 14))),
    ("RDPKRU", &[0x0f, 0x01, 0xee], Some((7, 0, 2, 4))),
    ("WRPKRU", &[0x0f, 0x01, 0xef], Some((7, 0, 2, 4))),
    ("XTEST", &[0x0f, 0x01, 0xd6], Some((7, 0, 1, 11))),
    ("RDRAND", &[0x0f, 0xc7, 0xf0], Some((1, 0, 2, 30))),
    ("RDSEED", &[0x48, 0x0f, 0xc7, 0xf8], Some((7, 0, 1, 18))),
    ("MOVDIRI", &[0x0f, 0x38, 0xf9, 0x06], Some((7, 0, 2, 27))),
    ("MOVDIR64B", &[0x66, 0x0f, 0x38, 0xf8, 0x06], Some((7, 0, 2, 28))),
    ("ADCX", &[0x66, 0x0f, 0x38, 0xf6, 0xc0], Some((7, 0, 1, 19))),
    ("LOADIWKEY", &[0xf3, 0x0f, 0x38, 0xdc, 0xc0], NEVER),
    ("RDMSRLIST", &[0xf2, 0x0f, 0x01, 0xc6], NEVER),
    ("WRMSRLIST", &[0xf3, 0x0f, 0x01, 0xc6], NEVER),
    ("PVALIDATE", &[0xf2, 0x0f, 0x01, 0xff], NEVER),
    ("RMPADJUST", &[0xf3, 0x0f, 0x01, 0xfe], NEVER),
    ("PSMASH", &[0xf3, 0x0f, 0x01, 0xff], NEVER),
    ("CLUI", &[0xf3, 0x0f, 0x01, 0xee], NEVER),
    ("STUI", &[0xf3, 0x0f, 0x01, 0xef], NEVER),
    ("SENDUIPI", &[0xf3, 0x0f, 0xc7, 0xf0], NEVER),
    ("ENQCMD", &[0xf2, 0x0f, 0x38, 0xf8, 0x06], NEVER),
    ("ENQCMDS", &[0xf3, 0x0f, 0x38, 0xf8, 0x06], NEVER),
    ("HRESET", &[0xf3, 0x0f, 0x3a, 0xf0, 0xc0, 0], NEVER),
    ("XGETBV of XINUSE", &[0x0f, 0x01, 0xd0], Some((1, 0, 2, 27))),
    ("TDCALL", &[0x66, 0x0f, 0x01, 0xcc], NEVER),
    ("SEAMCALL", &[0x66, 0x0f, 0x01, 0xcf], NEVER),
];

/// SVM has no intercept for these, so the CPU itself decides.
const UNINTERCEPTED: &[&str] =
    &["RDPID", "XSAVES", "XRSTORS", "UMONITOR", "UMWAIT", "TPAUSE", "RDSEED"];

fn is_announced((leaf, subleaf, register, bit): Place) -> bool {
    let first = leaf & 0xffff_0000;
    if cpuid(first, 0).eax < leaf {
        return false;
    }
    let answer = cpuid(leaf, subleaf);
    [answer.eax, answer.ebx, answer.ecx, answer.edx][register] >> bit & 1 != 0
}

/// Runs the checks.
pub(crate) fn check() {
    let scratch = [0_u64; 16];
    for (name, code, place) in INSTRUCTIONS {
        let without_intercept = super::is_amd() && UNINTERCEPTED.contains(name);
        if !place.is_some_and(is_announced) && !without_intercept {
            let outcome = try_with(code, &[(RSI, scratch.as_ptr() as u64)]);
            expect(format_args!("{name}, which CPUID hides"), outcome.vector, UNDEFINED);
        }
    }
    // Legal without a CPUID bit: WBNOINVD is WBINVD with a prefix that older CPUs ignore.
    for (name, code) in
        [("WBINVD", &[0x0f, 0x09][..]), ("WBNOINVD", &[0xf3, 0x0f, 0x09]), ("INVD", &[0x0f, 0x08])]
    {
        expect(format_args!("{name}"), try_with(code, &[]).vector, super::DONE);
    }
}
