//! A guest's output on a person's screen: without notices it arrives unchanged, and with them no
//! byte of it is lost.
#![no_main]

use boot::screen::painter::{Due, ScreenPainter};
use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use std::time::{Duration, Instant};

fuzz_target!(|bytes: &[u8]| {
    let start = Instant::now();
    let mut plain = Vec::new();
    let mut painter = ScreenPainter::new(&mut plain);
    bytes.chunks(7).for_each(|piece| painter.output(piece, start));
    drop(painter);
    assert_eq!(plain, bytes);

    let input = &mut Input::new(bytes);
    let (mut shown, mut now, mut all) = (Vec::new(), start, Vec::new());
    let mut painter = ScreenPainter::new(&mut shown);
    while !input.is_empty() {
        match input.u8() {
            0 => painter.notice("\x01".to_owned()),
            1 => {
                now += Duration::from_millis(300);
                if painter.due(now) == Due::Now {
                    painter.show();
                }
            }
            2 => painter.leave_full_screen(),
            len => {
                let piece = input.bytes((len & 31).into());
                all.extend_from_slice(piece);
                painter.output(piece, now);
            }
        }
    }
    painter.finish();
    drop(painter);
    // The terminal got all of it, in its order, and more between.
    let mut rest = shown.iter();
    assert!(all.iter().all(|byte| rest.any(|shown| shown == byte)));
});
