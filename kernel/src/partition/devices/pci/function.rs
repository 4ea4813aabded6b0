//! A virtio device as a function of the bus: configuration space, BAR and vectors.

use super::config_space::CONFIG_BYTES;
use super::vectors::{MessageVectors, ReleasedMessages};
use crate::dump::state_note::{StateError, StateReader, StateWriter};
use crate::partition::devices::virtio::device::VirtioDevice;
use crate::partition::devices::virtio::layout::{self, VirtioConfig, window};
use crate::virt::AccessWidth;
use alloc::sync::Arc;

/// What an access leads to outside of the function.
#[derive(Debug, Default)]
#[must_use = "a message that is dropped is an interrupt that never comes"]
pub struct FunctionNews {
    /// Interrupts for the guest.
    pub messages: ReleasedMessages,
    /// The device may have work.
    pub has_work: bool,
}

/// A function.
#[derive(Debug)]
pub struct VirtioFunction {
    config: VirtioConfig,
    vectors: MessageVectors,
    device: Arc<VirtioDevice>,
}

impl VirtioFunction {
    /// Puts a device on the bus.
    pub fn new(device: Arc<VirtioDevice>) -> Self {
        let (number, class, counts, own_bytes) = device.identity();
        let config = layout::config(number, class, counts, own_bytes);
        Self { config, vectors: MessageVectors::new(counts.1.into()), device }
    }

    /// Returns the device.
    pub const fn device(&self) -> &Arc<VirtioDevice> {
        &self.device
    }

    /// Resets the function with its device.
    pub fn reset(&mut self) {
        *self = Self::new(self.device.clone());
        self.device.reset();
    }

    fn control(&self) -> u16 {
        self.config.space.word(self.config.msix + 2)
    }

    /// Returns the place of an address in the BAR, if it decodes there.
    pub fn bar_offset(&self, gpa: u64) -> Option<u16> {
        let offset = gpa.checked_sub(self.config.space.bar()?)?;
        u16::try_from(offset).ok().filter(|offset| u32::from(*offset) < layout::BAR_BYTES)
    }

    /// Reads the configuration space.
    pub fn read_config(&mut self, offset: u16, width: AccessWidth) -> u64 {
        if let Some((bar_offset, window_width)) = self.windowed(offset, width) {
            return self.read_bar(bar_offset, window_width);
        }
        if usize::from(offset) >= CONFIG_BYTES { 0 } else { self.config.space.read(offset, width) }
    }

    /// Writes the configuration space.
    pub fn write_config(&mut self, offset: u16, width: AccessWidth, value: u64) -> FunctionNews {
        if let Some((bar_offset, window_width)) = self.windowed(offset, width) {
            return self.write_bar(bar_offset, window_width, value);
        }
        self.config.space.write(offset, width, value);
        let has_work = self.device.set_master(self.config.space.is_master());
        FunctionNews { messages: self.vectors.release(self.control()), has_work }
    }

    /// Returns the access to the BAR that an access to the window's data stands for.
    fn windowed(&self, offset: u16, width: AccessWidth) -> Option<(u16, AccessWidth)> {
        let (space, at) = (&self.config.space, self.config.window);
        let place = |field: u8| at + field;
        if offset != u16::from(place(window::DATA)) || width == AccessWidth::Qword {
            return None;
        }
        let wanted = AccessWidth::from_bytes(space.dword(place(window::LENGTH)) as usize)?;
        let start = u16::try_from(space.dword(place(window::OFFSET))).ok()?;
        let is_sound = wanted != AccessWidth::Qword
            && wanted.bytes() <= width.bytes()
            && space.dword(place(window::BAR)) & 0xff == 0
            && usize::from(start).is_multiple_of(wanted.bytes())
            && u32::from(start) < layout::BAR_BYTES;
        is_sound.then_some((start, wanted))
    }

    /// Reads the BAR.
    pub fn read_bar(&mut self, offset: u16, width: AccessWidth) -> u64 {
        match offset {
            ..layout::ISR => self.device.read_common(offset, width),
            layout::ISR => self.device.take_isr().into(),
            layout::TABLE..layout::PENDING => self.vectors.read(offset - layout::TABLE, width),
            layout::PENDING.. => self.vectors.read_pending(offset - layout::PENDING, width),
            _ => 0,
        }
    }

    /// Writes the BAR.
    pub fn write_bar(&mut self, offset: u16, width: AccessWidth, value: u64) -> FunctionNews {
        let mut news = FunctionNews::default();
        match offset {
            ..layout::ISR => news.has_work = self.device.write_common(offset, width, value),
            layout::NOTIFY..layout::TABLE => news.has_work = true,
            layout::TABLE..layout::PENDING => {
                let control = self.control();
                news.messages = self.vectors.write(offset - layout::TABLE, width, value, control);
            }
            _ => {}
        }
        news
    }

    /// Returns the interrupts of the vectors that the device has signalled.
    pub fn deliver(&mut self) -> ReleasedMessages {
        let raised = self.device.take_raised();
        if !self.config.space.is_master() {
            return ReleasedMessages::new();
        }
        let control = self.control();
        let signalled = (0..self.vectors.count()).filter(|vector| raised >> vector & 1 != 0);
        signalled.filter_map(|vector| self.vectors.signal(vector, control)).collect()
    }

    /// Returns whether an interrupt of the device can still come.
    pub fn can_interrupt(&self) -> bool {
        MessageVectors::is_enabled(self.control()) && self.device.is_running()
    }

    /// Appends the state of function and device.
    pub fn save(&self, out: &mut StateWriter) {
        out.u16(self.device.identity().0);
        self.config.space.save(out);
        self.vectors.save(out);
        self.device.save(out);
    }

    /// Takes the state of the same device over.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn restore(&mut self, from: &mut StateReader<'_>) -> Result<(), StateError> {
        let kind = from.u16()?;
        from.check(kind == self.device.identity().0)?;
        self.config.space.restore(from)?;
        self.vectors.restore(from)?;
        self.device.set_master(self.config.space.is_master());
        self.device.restore(from)
    }
}
