//! Copies from and to guest memory through a memory object.
use super::{
    guest::{GuestAccess, GuestMemory},
    object::MemoryObject,
    phys::FrameMemory,
};
use crate::addr::{Gpa, PageIndex};
use crate::virt::Access;

/// Why a page could not be made resident now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotNow {
    /// It is on its way, or waits for a frame.
    Wait,
    /// It cannot be read back.
    Lost,
}

/// Makes pages resident; the pager is one.
pub trait Faulter {
    /// Brings page `index` of `object` in for `access`; `Ok` if it is resident by now, so that the access can be repeated.
    fn fault(&self, object: &MemoryObject, index: PageIndex, access: Access) -> Result<(), NotNow>;
}

/// The bytes of an object's pages.
#[derive(Debug)]
pub struct GuestBytes<'a, M: FrameMemory, F: Faulter> {
    /// Whose pages.
    pub object: &'a MemoryObject,
    /// Where frames are.
    pub memory: &'a M,
    /// Who makes pages resident.
    pub faulter: &'a F,
}

impl<M: FrameMemory, F: Faulter> GuestMemory for GuestBytes<'_, M, F> {
    fn read(&self, _gpa: Gpa, _buf: &mut [u8]) -> Result<(), GuestAccess> {
        todo!()
    }
    fn write(&self, _gpa: Gpa, _bytes: &[u8]) -> Result<(), GuestAccess> {
        todo!()
    }
}
