#![no_std]
//! What the test kernels share.
