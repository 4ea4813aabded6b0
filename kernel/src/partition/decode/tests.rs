use super::*;
use iced_x86::{Code, Decoder, DecoderOptions, Mnemonic, OpKind, Register as Iced};

const SIZES: [(CodeSize, u32); 3] =
    [(CodeSize::Bits16, 16), (CodeSize::Bits32, 32), (CodeSize::Bits64, 64)];

fn low(gpr: Gpr) -> RegisterOperand {
    RegisterOperand { gpr, part: RegisterPart::Low }
}

fn decode_64(bytes: &[u8]) -> (InstructionKind, AccessWidth, u8) {
    let i = decode(bytes, CodeSize::Bits64).unwrap();
    (i.kind, i.width, i.length)
}

#[test]
fn the_forms_that_linux_uses_at_devices() {
    let load = |gpr, extend, to| InstructionKind::Load { register: low(gpr), extend, to };
    for (bytes, expected) in [
        // mov eax, [rdi]; mov [rsi + 0x10], edx; mov [rip + x], r9d;
        // mov dword [rbx + rcx * 4 + 8], 5
        (
            &[0x8b, 0x07][..],
            (load(Gpr::Rax, OperandExtension::Zero, AccessWidth::Dword), AccessWidth::Dword, 2),
        ),
        (
            &[0x89, 0x56, 0x10],
            (InstructionKind::Store(SourceOperand::Register(low(Gpr::Rdx))), AccessWidth::Dword, 3),
        ),
        (
            &[0x44, 0x89, 0x0d, 1, 2, 3, 4],
            (InstructionKind::Store(SourceOperand::Register(low(Gpr::R9))), AccessWidth::Dword, 7),
        ),
        (
            &[0xc7, 0x44, 0x8b, 8, 5, 0, 0, 0],
            (InstructionKind::Store(SourceOperand::Immediate(5)), AccessWidth::Dword, 8),
        ),
        // mov qword [rax], -1; movzx eax, byte [rdx]; movsx rcx, word [rdx]
        (
            &[0x48, 0xc7, 0x00, 255, 255, 255, 255],
            (InstructionKind::Store(SourceOperand::Immediate(u64::MAX)), AccessWidth::Qword, 7),
        ),
        (
            &[0x0f, 0xb6, 0x02],
            (load(Gpr::Rax, OperandExtension::Zero, AccessWidth::Dword), AccessWidth::Byte, 3),
        ),
        (
            &[0x48, 0x0f, 0xbf, 0x0a],
            (load(Gpr::Rcx, OperandExtension::Sign, AccessWidth::Qword), AccessWidth::Word, 4),
        ),
        // lock or dword [rdi], 1; test byte [rax], 0x80; xchg [rdx], ax
        (
            &[0xf0, 0x83, 0x0f, 1],
            (
                InstructionKind::AluMemory(Alu::Or, SourceOperand::Immediate(1)),
                AccessWidth::Dword,
                4,
            ),
        ),
        (
            &[0xf6, 0x00, 0x80],
            (
                InstructionKind::Test(SourceOperand::Immediate(0xffff_ffff_ffff_ff80)),
                AccessWidth::Byte,
                3,
            ),
        ),
        (&[0x66, 0x87, 0x02], (InstructionKind::Exchange(low(Gpr::Rax)), AccessWidth::Word, 3)),
        // mov ah, [rbx], and with REX spl instead
        (
            &[0x8a, 0x23],
            (
                InstructionKind::Load {
                    register: RegisterOperand { gpr: Gpr::Rax, part: RegisterPart::HighByte },
                    extend: OperandExtension::Zero,
                    to: AccessWidth::Byte,
                },
                AccessWidth::Byte,
                2,
            ),
        ),
        (
            &[0x40, 0x8a, 0x23],
            (load(Gpr::Rsp, OperandExtension::Zero, AccessWidth::Byte), AccessWidth::Byte, 3),
        ),
    ] {
        assert_eq!(decode_64(bytes), expected, "{bytes:x?}");
    }
}

#[test]
fn string_instructions_tell_width_repetition_address_and_segment() {
    let i = decode(&[0xf3, 0x6e], CodeSize::Bits64).unwrap();
    assert_eq!(
        (i.kind, i.width, i.repeat, i.address),
        (InstructionKind::OutString, AccessWidth::Byte, Repeat::WhileEqual, AccessWidth::Qword)
    );
    let i = decode(&[0x64, 0x67, 0x66, 0x6f], CodeSize::Bits32).unwrap();
    assert_eq!(
        (i.width, i.repeat, i.address, i.segment),
        (AccessWidth::Word, Repeat::Once, AccessWidth::Word, Some(SegmentName::Fs))
    );
    let i = decode(&[0x48, 0x6d], CodeSize::Bits64).unwrap();
    assert_eq!(
        (i.kind, i.width),
        (InstructionKind::InString, AccessWidth::Dword),
        "no qword ports"
    );
    let i = decode(&[0xf3, 0x48, 0xa5], CodeSize::Bits64).unwrap();
    assert_eq!((i.kind, i.width, i.length), (InstructionKind::MoveString, AccessWidth::Qword, 3));
}

#[test]
fn what_exits_by_itself_has_its_length() {
    for bytes in [
        &[0x0f, 0xa2][..],
        &[0xf4],
        &[0x0f, 0x32],
        &[0x0f, 0x30],
        &[0x0f, 0x01, 0xd9],
        &[0x0f, 0x01, 0xc1],
        &[0x0f, 0x01, 0xd1],
        &[0x0f, 0x08],
        &[0x0f, 0x09],
        &[0xe4, 0x61],
        &[0x66, 0xef],
        &[0xf3, 0x40, 0x0f, 0xa2],
    ] {
        assert_eq!(
            decode_64(bytes),
            (InstructionKind::Other, AccessWidth::Byte, bytes.len() as u8),
            "{bytes:x?}"
        );
    }
}

#[test]
fn a_move_of_a_system_register_names_the_general_one() {
    for (bytes, kind) in [
        (&[0x0f, 0x22, 0xe0][..], InstructionKind::ToControl(4, Gpr::Rax)),
        (&[0x41, 0x0f, 0x22, 0xe3], InstructionKind::ToControl(4, Gpr::R11)),
        (&[0x44, 0x0f, 0x22, 0xc1], InstructionKind::ToControl(8, Gpr::Rcx)),
        (&[0x0f, 0x23, 0x3f], InstructionKind::System(Gpr::Rdi)),
        (&[0x49, 0x0f, 0x21, 0xff], InstructionKind::System(Gpr::R15)),
        (&[0x41, 0x0f, 0x01, 0xf1], InstructionKind::LoadStatusWord(Gpr::R9)),
    ] {
        assert_eq!(decode_64(bytes), (kind, AccessWidth::Byte, bytes.len() as u8), "{bytes:x?}");
    }
}

#[test]
fn a_cut_instruction_is_truncated_and_an_endless_one_unknown() {
    let whole = [0x48, 0xc7, 0x84, 0x8b, 1, 2, 3, 4, 5, 6, 7, 8];
    for length in 0..whole.len() {
        assert_eq!(
            decode(&whole[..length], CodeSize::Bits64),
            Err(DecodeError::Truncated),
            "{length}"
        );
    }
    assert_eq!(decode(&[0x66; 15], CodeSize::Bits64), Err(DecodeError::Unknown));
    assert_eq!(decode(&[0x66; 14], CodeSize::Bits64), Err(DecodeError::Truncated));
}

/// Compares length, mnemonic, memory width and register; tells whether both decoders know the
/// instruction.
fn check_against_iced(bytes: &[u8], size: CodeSize, bits: u32) -> bool {
    let Ok(ours) = decode(bytes, size) else { return false };
    let theirs = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
    if theirs.code() == Code::INVALID {
        // A LOCK prefix where none is allowed, or a reserved form: the CPU raised #UD before any
        // exit.
        return false;
    }
    let context = format!("{bytes:02x?} {bits} {ours:?} {:?}", theirs.code());
    assert_eq!(usize::from(ours.length), theirs.len(), "{context}");
    match ours.kind {
        InstructionKind::System(gpr) | InstructionKind::ToControl(_, gpr) => {
            check_system_register(gpr, &theirs, &context)
        }
        InstructionKind::LoadStatusWord(_) => {
            assert_eq!(theirs.mnemonic(), Mnemonic::Lmsw, "{context}")
        }
        InstructionKind::Other | InstructionKind::InString | InstructionKind::OutString => {}
        kind => {
            assert!(mnemonics(kind).contains(&theirs.mnemonic()), "{context}");
            assert_eq!(ours.width.bytes(), theirs.memory_size().size(), "{context}");
            check_register(kind, &theirs, &context);
            check_operand(&ours, size, &theirs, &context);
        }
    }
    true
}

fn mnemonics(kind: InstructionKind) -> &'static [Mnemonic] {
    match kind {
        InstructionKind::Store(_) => &[Mnemonic::Mov, Mnemonic::Movnti],
        InstructionKind::Load { extend: OperandExtension::Zero, .. } => {
            &[Mnemonic::Mov, Mnemonic::Movzx]
        }
        InstructionKind::Load { extend: OperandExtension::Sign, .. } => {
            &[Mnemonic::Movsx, Mnemonic::Movsxd]
        }
        InstructionKind::AluMemory(op, _) | InstructionKind::AluRegister(op, _) => match op {
            Alu::Add => &[Mnemonic::Add],
            Alu::Or => &[Mnemonic::Or],
            Alu::Adc => &[Mnemonic::Adc],
            Alu::Sbb => &[Mnemonic::Sbb],
            Alu::And => &[Mnemonic::And],
            Alu::Sub => &[Mnemonic::Sub],
            Alu::Xor => &[Mnemonic::Xor],
            Alu::Cmp => &[Mnemonic::Cmp],
        },
        InstructionKind::Test(_) => &[Mnemonic::Test],
        InstructionKind::Exchange(_) => &[Mnemonic::Xchg],
        InstructionKind::Unary(Unary::Not) => &[Mnemonic::Not],
        InstructionKind::Unary(Unary::Neg) => &[Mnemonic::Neg],
        InstructionKind::Unary(Unary::Inc) => &[Mnemonic::Inc],
        InstructionKind::Unary(Unary::Dec) => &[Mnemonic::Dec],
        InstructionKind::MoveString => {
            &[Mnemonic::Movsb, Mnemonic::Movsw, Mnemonic::Movsd, Mnemonic::Movsq]
        }
        InstructionKind::StoreString => {
            &[Mnemonic::Stosb, Mnemonic::Stosw, Mnemonic::Stosd, Mnemonic::Stosq]
        }
        InstructionKind::Bit(op, _) => match op {
            BitOp::Test => &[Mnemonic::Bt],
            BitOp::Set => &[Mnemonic::Bts],
            BitOp::Reset => &[Mnemonic::Btr],
            BitOp::Complement => &[Mnemonic::Btc],
        },
        InstructionKind::CompareExchange(_) => &[Mnemonic::Cmpxchg],
        InstructionKind::ExchangeAdd(_) => &[Mnemonic::Xadd],
        InstructionKind::Multiply(..) | InstructionKind::MultiplyWide(OperandExtension::Sign) => {
            &[Mnemonic::Imul]
        }
        InstructionKind::MultiplyWide(OperandExtension::Zero) => &[Mnemonic::Mul],
        InstructionKind::Shift(op, _) => match op {
            ShiftOperation::RotateLeft => &[Mnemonic::Rol],
            ShiftOperation::RotateRight => &[Mnemonic::Ror],
            ShiftOperation::RotateCarryLeft => &[Mnemonic::Rcl],
            ShiftOperation::RotateCarryRight => &[Mnemonic::Rcr],
            ShiftOperation::Left => &[Mnemonic::Shl, Mnemonic::Sal],
            ShiftOperation::Right => &[Mnemonic::Shr],
            ShiftOperation::ArithmeticRight => &[Mnemonic::Sar],
        },
        InstructionKind::ConditionalLoad(condition, _) => {
            core::slice::from_ref(&CONDITIONAL_LOADS[usize::from(condition.0)])
        }
        InstructionKind::SetByte(condition) => {
            core::slice::from_ref(&SET_BYTES[usize::from(condition.0)])
        }
        InstructionKind::Scan(BitScan::Forward, _) => &[Mnemonic::Bsf],
        InstructionKind::Scan(BitScan::Reverse, _) => &[Mnemonic::Bsr],
        InstructionKind::Scan(BitScan::Count, _) => &[Mnemonic::Popcnt],
        InstructionKind::LoadSwapped(_) | InstructionKind::StoreSwapped(_) => &[Mnemonic::Movbe],
        InstructionKind::Push => &[Mnemonic::Push],
        InstructionKind::Pop => &[Mnemonic::Pop],
        InstructionKind::CompareStrings => {
            &[Mnemonic::Cmpsb, Mnemonic::Cmpsw, Mnemonic::Cmpsd, Mnemonic::Cmpsq]
        }
        InstructionKind::ScanString => {
            &[Mnemonic::Scasb, Mnemonic::Scasw, Mnemonic::Scasd, Mnemonic::Scasq]
        }
        InstructionKind::LoadString => {
            &[Mnemonic::Lodsb, Mnemonic::Lodsw, Mnemonic::Lodsd, Mnemonic::Lodsq]
        }
        InstructionKind::InString
        | InstructionKind::OutString
        | InstructionKind::System(_)
        | InstructionKind::ToControl(..) => &[],
        InstructionKind::LoadStatusWord(_) | InstructionKind::Other => &[],
    }
}

#[rustfmt::skip]
const CONDITIONAL_LOADS: [Mnemonic; 16] = [
    Mnemonic::Cmovo, Mnemonic::Cmovno, Mnemonic::Cmovb, Mnemonic::Cmovae, Mnemonic::Cmove,
    Mnemonic::Cmovne, Mnemonic::Cmovbe,
    Mnemonic::Cmova, Mnemonic::Cmovs, Mnemonic::Cmovns, Mnemonic::Cmovp, Mnemonic::Cmovnp,
    Mnemonic::Cmovl, Mnemonic::Cmovge,
    Mnemonic::Cmovle, Mnemonic::Cmovg,
];
#[rustfmt::skip]
const SET_BYTES: [Mnemonic; 16] = [
    Mnemonic::Seto, Mnemonic::Setno, Mnemonic::Setb, Mnemonic::Setae, Mnemonic::Sete,
    Mnemonic::Setne, Mnemonic::Setbe,
    Mnemonic::Seta, Mnemonic::Sets, Mnemonic::Setns, Mnemonic::Setp, Mnemonic::Setnp,
    Mnemonic::Setl, Mnemonic::Setge,
    Mnemonic::Setle, Mnemonic::Setg,
];

fn check_system_register(gpr: Gpr, theirs: &iced_x86::Instruction, context: &str) {
    assert_eq!(theirs.mnemonic(), Mnemonic::Mov, "{context}");
    let general = (0..2).map(|i| theirs.op_register(i)).find(|r| r.is_gpr()).expect(context);
    assert_eq!(gpr as usize, general.full_register().number(), "{context}");
}

fn check_register(kind: InstructionKind, theirs: &iced_x86::Instruction, context: &str) {
    let register = match kind {
        InstructionKind::Store(SourceOperand::Register(r))
        | InstructionKind::AluMemory(_, SourceOperand::Register(r))
        | InstructionKind::Test(SourceOperand::Register(r)) => r,
        InstructionKind::Load { register, .. }
        | InstructionKind::AluRegister(_, register)
        | InstructionKind::Exchange(register) => register,
        InstructionKind::Bit(_, SourceOperand::Register(r))
        | InstructionKind::CompareExchange(r)
        | InstructionKind::ExchangeAdd(r)
        | InstructionKind::Multiply(r, _) => r,
        InstructionKind::ConditionalLoad(_, r)
        | InstructionKind::Scan(_, r)
        | InstructionKind::LoadSwapped(r)
        | InstructionKind::StoreSwapped(r) => r,
        _ => return,
    };
    let named = (0..theirs.op_count())
        .find(|&i| theirs.op_kind(i) == OpKind::Register)
        .map(|i| theirs.op_register(i));
    let named = named.expect(context);
    assert_eq!(register.gpr as usize, named.full_register().number(), "{context}");
    let high = matches!(named, Iced::AH | Iced::BH | Iced::CH | Iced::DH);
    assert_eq!(register.part == RegisterPart::HighByte, high, "{context}");
}

/// Compares the parts of the address. The addresses of string instructions are in registers that no
/// byte names.
fn check_operand(
    ours: &Instruction,
    size: CodeSize,
    theirs: &iced_x86::Instruction,
    context: &str,
) {
    let Some(operand) = ours.operand else {
        let is_string = (0..theirs.op_count()).all(|i| theirs.op_kind(i) != OpKind::Memory);
        return assert!(is_string, "{context}");
    };
    let number =
        |register: Iced| (register != Iced::None).then(|| register.full_register().number());
    let base = match operand.base {
        AddressBase::Register(gpr) => Some(gpr as usize),
        AddressBase::None | AddressBase::Next => None,
    };
    let is_next = theirs.is_ip_rel_memory_operand();
    assert_eq!(operand.base == AddressBase::Next, is_next, "{context}");
    let next = if is_next { ours.length.into() } else { 0 };
    let index = operand.index.map(|(gpr, shift)| (gpr as usize, 1 << shift));
    let (their_base, their_index) = if is_next {
        (None, None)
    } else {
        (number(theirs.memory_base()), number(theirs.memory_index()))
    };
    assert_eq!(base, their_base, "{context}");
    assert_eq!(index, their_index.map(|index| (index, theirs.memory_index_scale())), "{context}");
    let displacement = operand.displacement.wrapping_add(next) & ours.address.mask();
    assert_eq!(displacement, theirs.memory_displacement64() & ours.address.mask(), "{context}");
    let segment = [Iced::ES, Iced::CS, Iced::SS, Iced::DS, Iced::FS, Iced::GS]
        [ours.segment.unwrap_or(operand.segment) as usize];
    let is_flat = |register| size == CodeSize::Bits64 && !matches!(register, Iced::FS | Iced::GS);
    assert!(
        segment == theirs.memory_segment() || is_flat(segment) && is_flat(theirs.memory_segment()),
        "{context}"
    );
}

#[test]
fn a_complete_decoder_agrees_on_everything_we_decode() {
    let mut checked = 0;
    let mut x = 0x1234_5678_9abc_def1u64;
    for round in 0..150_000u32 {
        let mut bytes = [0u8; 15];
        for b in &mut bytes {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            *b = (x >> 24) as u8;
        }
        // Half of the rounds begin with prefixes or the two-byte escape, which random bytes rarely
        // do.
        let start = [0x66, 0x67, 0x48, 0x44, 0x41, 0xf3, 0x0f, 0x64][round as usize % 8];
        if round % 16 < 8 {
            bytes[0] = start;
        }
        for (size, bits) in SIZES {
            checked += u32::from(check_against_iced(&bytes, size, bits));
        }
    }
    assert!(checked > 100_000, "{checked}");
}
