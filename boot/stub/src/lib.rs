#![no_std]
//! From power-on to the kernel.
