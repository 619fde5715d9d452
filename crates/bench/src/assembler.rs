//! A small BPF assembler, so that a program costs exactly its instructions.

/// A program being assembled. Registers are given by number; R10 is the frame pointer.
pub(crate) struct Code {
    ops: Vec<u64>,
    /// Jumps to labels that have no offset yet.
    jumps: Vec<(usize, Label)>,
    labels: Vec<(Label, usize)>,
}

/// A jump target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Label {
    /// Where the packet is passed.
    Leave,
    /// Where the second endpoint is stored first.
    Swapped,
    /// Where the key is complete.
    Keyed,
    /// Where no entry was found.
    Missing,
    /// Where a frame from end B is written.
    OfB,
    /// Where the frame is complete.
    Written,
}

impl Code {
    pub(crate) fn new() -> Code {
        Code { ops: Vec::new(), jumps: Vec::new(), labels: Vec::new() }
    }

    /// `to = *(size *)(from + offset)`
    pub(crate) fn load(&mut self, size: Size, to: u8, from: u8, offset: i16) -> &mut Code {
        self.push(0x61 | size as u8, to, from, offset, 0)
    }

    /// `*(size *)(to + offset) = from`
    pub(crate) fn store(&mut self, size: Size, to: u8, offset: i16, from: u8) -> &mut Code {
        self.push(0x63 | size as u8, to, from, offset, 0)
    }

    /// `*(size *)(to + offset) = value`
    pub(crate) fn store_value(&mut self, size: Size, to: u8, offset: i16, value: i32) -> &mut Code {
        self.push(0x62 | size as u8, to, 0, offset, value)
    }

    /// `to = to op from`, 64 bits.
    pub(crate) fn with(&mut self, op: Op, to: u8, from: u8) -> &mut Code {
        self.push(0x0f | op as u8, to, from, 0, 0)
    }

    /// `to = to op value`, 64 bits.
    pub(crate) fn with_value(&mut self, op: Op, to: u8, value: i32) -> &mut Code {
        self.push(0x07 | op as u8, to, 0, 0, value)
    }

    /// `to = to op value`, 32 bits, the upper half becomes zero.
    pub(crate) fn with_value_32(&mut self, op: Op, to: u8, value: i32) -> &mut Code {
        self.push(0x04 | op as u8, to, 0, 0, value)
    }

    /// Converts `register` to or from big endian, with this many bits.
    pub(crate) fn swap_bytes(&mut self, register: u8, bits: i32) -> &mut Code {
        self.push(0xdc, register, 0, 0, bits)
    }

    /// `register = value`, 64 bits.
    fn wide(&mut self, register: u8, kind: u8, low: i32, high: i32) -> &mut Code {
        self.push(0x18, register, kind, 0, low).push(0, 0, 0, 0, high)
    }

    /// Loads the map's descriptor into `register`, for a helper.
    pub(crate) fn map(&mut self, register: u8, map: i32) -> &mut Code {
        self.wide(register, 1, map, 0)
    }

    /// Loads the address of an array's first value into `register`.
    pub(crate) fn first_value(&mut self, register: u8, map: i32) -> &mut Code {
        self.wide(register, 2, map, 0)
    }

    /// Calls a helper: arguments in R1 to R5, which are clobbered, result in R0.
    pub(crate) fn call(&mut self, helper: i32) -> &mut Code {
        self.push(0x85, 0, 0, 0, helper)
    }

    pub(crate) fn jump(&mut self, to: Label) -> &mut Code {
        self.branch(0x05, 0, 0, 0, to)
    }

    /// Jumps if `one > other`, unsigned.
    pub(crate) fn jump_greater(&mut self, one: u8, other: u8, to: Label) -> &mut Code {
        self.branch(0x2d, one, other, 0, to)
    }

    pub(crate) fn jump_equal(&mut self, register: u8, value: i32, to: Label) -> &mut Code {
        self.branch(0x15, register, 0, value, to)
    }

    pub(crate) fn jump_not_equal(&mut self, register: u8, value: i32, to: Label) -> &mut Code {
        self.branch(0x55, register, 0, value, to)
    }

    /// Binds a label to the next instruction.
    pub(crate) fn label(&mut self, label: Label) -> &mut Code {
        self.labels.push((label, self.ops.len()));
        self
    }

    pub(crate) fn exit(&mut self) -> &mut Code {
        self.push(0x95, 0, 0, 0, 0)
    }

    /// Returns the instructions.
    ///
    /// # Panics
    ///
    /// Panics if a jump leads to an unbound label.
    pub(crate) fn finish(&self) -> Vec<u64> {
        let mut ops = self.ops.clone();
        for &(at, label) in &self.jumps {
            let target = self.labels.iter().find(|(name, _)| *name == label).map(|(_, target)| *target);
            let target = target.unwrap_or_else(|| panic!("no {label:?} in this program"));
            ops[at] |= u64::from((target as i64 - at as i64 - 1) as u16) << 16;
        }
        ops
    }

    fn branch(&mut self, code: u8, to: u8, from: u8, value: i32, label: Label) -> &mut Code {
        self.jumps.push((self.ops.len(), label));
        self.push(code, to, from, 0, value)
    }

    fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, value: i32) -> &mut Code {
        self.ops.push(
            u64::from(code)
                | u64::from(to) << 8
                | u64::from(from) << 12
                | u64::from(offset as u16) << 16
                | u64::from(value as u32) << 32,
        );
        self
    }
}

/// The size of a load or store.
#[derive(Clone, Copy)]
pub(crate) enum Size {
    U32 = 0x00,
    U16 = 0x08,
    U8 = 0x10,
    U64 = 0x18,
}

/// An arithmetic operation.
#[derive(Clone, Copy)]
pub(crate) enum Op {
    Add = 0x00,
    Multiply = 0x20,
    Divide = 0x30,
    And = 0x50,
    ShiftRight = 0x70,
    Modulo = 0x90,
    Xor = 0xa0,
    Move = 0xb0,
}
