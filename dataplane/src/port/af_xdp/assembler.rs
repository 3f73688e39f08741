//! A small eBPF assembler: just the instructions that `program.rs` needs.
//!
//! Jumps go forward only, as they did in every program that the first eBPF verifier accepted: a
//! conditional jump returns a [`Jump`], and [`Assembler::land`] makes jumps arrive at the next
//! instruction. So there are no label names to misspell.
//!
//! Encoding: RFC 9669 section 3.

/// A register. `R0` is a call's result, `R1` to `R5` its arguments, which it destroys; `R6` to `R9`
/// survive calls; `R10` points to the end of the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Register {
    R0 = 0,
    R1 = 1,
    R2 = 2,
    R3 = 3,
    R4 = 4,
    R5 = 5,
    R6 = 6,
    R10 = 10,
}

/// How many octets a load or store moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Width {
    /// Four octets (`BPF_W`).
    Word = 0x00,
    /// Two octets (`BPF_H`).
    Half = 0x08,
}

/// What a conditional jump asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Condition {
    /// Equal.
    Equal = 0x10,
    /// Greater, unsigned.
    Greater = 0x20,
    /// Not equal.
    NotEqual = 0x50,
}

/// A helper function of the kernel, by its number in `enum bpf_func_id`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Helper {
    /// `bpf_map_lookup_elem(map, key)`.
    MapLookup = 1,
    /// `bpf_redirect_map(map, index, verdict if the index is empty)`.
    RedirectMap = 51,
}

/// One instruction, as the kernel reads it (`struct bpf_insn`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A forward jump that has not landed yet.
#[derive(Debug)]
#[must_use = "a jump must land somewhere"]
pub struct Jump(usize);

/// Instruction classes, and the bits that go with them.
const LD: u8 = 0x00;
const LDX: u8 = 0x01;
const STX: u8 = 0x03;
const JMP: u8 = 0x05;
const JMP32: u8 = 0x06;
const ALU64: u8 = 0x07;
const FROM_REGISTER: u8 = 0x08;
const MEMORY: u8 = 0x60;
const DOUBLE_WORD: u8 = 0x18;
const ADD: u8 = 0x00;
const MOVE: u8 = 0xb0;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
/// In the source register field of a 64-bit immediate load: the immediate is a map's descriptor.
const PSEUDO_MAP_DESCRIPTOR: u8 = 1;

/// A program being written.
#[derive(Debug, Default)]
pub struct Assembler {
    code: Vec<Instruction>,
}

impl Assembler {
    fn emit(&mut self, code: u8, target: Register, source: u8, offset: i16, immediate: i32) {
        let (first, second) = (target as u8, source);
        let registers = if cfg!(target_endian = "little") {
            first | second << 4
        } else {
            first << 4 | second
        };
        self.code.push(Instruction {
            code,
            registers,
            offset,
            immediate,
        });
    }

    /// `target = source`
    pub fn copy(&mut self, target: Register, source: Register) {
        self.emit(ALU64 | MOVE | FROM_REGISTER, target, source as u8, 0, 0);
    }

    /// `target = value`
    pub fn set(&mut self, target: Register, value: i32) {
        self.emit(ALU64 | MOVE, target, 0, 0, value);
    }

    /// `target += value`
    pub fn add(&mut self, target: Register, value: i32) {
        self.emit(ALU64 | ADD, target, 0, 0, value);
    }

    /// `target = *(source + offset)`, in the machine's octet order.
    pub fn load(&mut self, width: Width, target: Register, source: Register, offset: i16) {
        let code = LDX | MEMORY | width as u8;
        self.emit(code, target, source as u8, offset, 0);
    }

    /// `*(target + offset) = source`, in the machine's octet order.
    pub fn store(&mut self, width: Width, target: Register, offset: i16, source: Register) {
        let code = STX | MEMORY | width as u8;
        self.emit(code, target, source as u8, offset, 0);
    }

    /// `target = the map with this file descriptor`; takes two instruction slots.
    pub fn load_map(&mut self, target: Register, descriptor: i32) {
        let code = LD | DOUBLE_WORD;
        self.emit(code, target, PSEUDO_MAP_DESCRIPTOR, 0, descriptor);
        self.emit(0, Register::R0, 0, 0, 0);
    }

    /// Jumps if the low 32 bits of `left` stand in this relation to `right`.
    pub fn jump_if(&mut self, left: Register, condition: Condition, right: u32) -> Jump {
        let right = i32::from_ne_bytes(right.to_ne_bytes());
        self.emit(JMP32 | condition as u8, left, 0, 0, right);
        Jump(self.code.len() - 1)
    }

    /// Jumps if `left` stands in this relation to `right`, 64 bits wide.
    pub fn jump_if_register(
        &mut self,
        left: Register,
        condition: Condition,
        right: Register,
    ) -> Jump {
        let code = JMP | condition as u8 | FROM_REGISTER;
        self.emit(code, left, right as u8, 0, 0);
        Jump(self.code.len() - 1)
    }

    /// Jumps if `register` is zero, 64 bits wide: the test of a pointer that a helper returned.
    pub fn jump_if_null(&mut self, register: Register) -> Jump {
        self.emit(JMP | Condition::Equal as u8, register, 0, 0, 0);
        Jump(self.code.len() - 1)
    }

    /// Jumps in any case.
    pub fn jump(&mut self) -> Jump {
        self.emit(JMP, Register::R0, 0, 0, 0);
        Jump(self.code.len() - 1)
    }

    /// Makes these jumps arrive at the next instruction to be written.
    pub fn land<const N: usize>(&mut self, jumps: [Jump; N]) {
        let here = self.code.len();
        for Jump(from) in jumps {
            let distance = here - from - 1;
            assert!(distance <= i16::MAX as usize, "the program is too long");
            self.code[from].offset = distance as i16;
        }
    }

    /// Calls a helper of the kernel.
    pub fn call(&mut self, helper: Helper) {
        self.emit(JMP | CALL, Register::R0, 0, 0, helper as i32);
    }

    /// Ends the program; its verdict is in `R0`.
    pub fn exit(&mut self) {
        self.emit(JMP | EXIT, Register::R0, 0, 0, 0);
    }

    /// The finished program.
    pub fn finish(self) -> Vec<Instruction> {
        self.code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(instruction: &Instruction) -> [u8; 8] {
        let offset = instruction.offset.to_le_bytes();
        let immediate = instruction.immediate.to_le_bytes();
        let mut all = [0; 8];
        all[0] = instruction.code;
        all[1] = instruction.registers;
        all[2..4].copy_from_slice(&offset);
        all[4..].copy_from_slice(&immediate);
        all
    }

    /// The octets are those that `llvm-mc -triple=bpfel` gives for the text beside them.
    #[test]
    #[cfg(target_endian = "little")]
    fn instructions_encode_as_in_rfc_9669_section_3() {
        let mut program = Assembler::default();
        program.copy(Register::R6, Register::R1); // r6 = r1
        program.set(Register::R0, 2); // r0 = 2
        program.add(Register::R4, 14); // r4 += 14
        program.load(Width::Word, Register::R2, Register::R1, 0); // r2 = *(u32 *)(r1 + 0)
        program.load(Width::Half, Register::R4, Register::R2, 12); // r4 = *(u16 *)(r2 + 12)
        program.store(Width::Word, Register::R10, -4, Register::R4); // *(u32 *)(r10 - 4) = r4
        program.load_map(Register::R1, 7); // r1 = map 7 ll
        program.call(Helper::RedirectMap); // call 51
        program.exit(); // exit
        let expected: [[u8; 8]; 10] = [
            [0xbf, 0x16, 0, 0, 0, 0, 0, 0],
            [0xb7, 0x00, 0, 0, 2, 0, 0, 0],
            [0x07, 0x04, 0, 0, 14, 0, 0, 0],
            [0x61, 0x12, 0, 0, 0, 0, 0, 0],
            [0x69, 0x24, 12, 0, 0, 0, 0, 0],
            [0x63, 0x4a, 0xfc, 0xff, 0, 0, 0, 0],
            [0x18, 0x11, 0, 0, 7, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
            [0x85, 0x00, 0, 0, 51, 0, 0, 0],
            [0x95, 0x00, 0, 0, 0, 0, 0, 0],
        ];
        let code: Vec<_> = program.finish().iter().map(octets).collect();
        assert_eq!(code, expected);
    }

    #[test]
    fn a_jump_counts_from_the_instruction_after_it() {
        let mut program = Assembler::default();
        let first = program.jump_if(Register::R4, Condition::NotEqual, 0xffff_0806);
        let second = program.jump_if_register(Register::R4, Condition::Greater, Register::R3);
        program.exit();
        program.land([first, second]);
        program.exit();
        let code = program.finish();
        assert_eq!((code[0].code, code[0].offset), (0x56, 2));
        assert_eq!(code[0].immediate as u32, 0xffff_0806);
        assert_eq!((code[1].code, code[1].offset), (0x2d, 1));
    }
}
