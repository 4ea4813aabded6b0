//! From your shell to power-on: the host command `tidepool` as a library, so that the tests drive the same code.
