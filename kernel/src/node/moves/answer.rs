//! What other members write to this one.

use super::{MoveReservation, RESERVED_NS, answers, drain, ends};
use crate::arch::time;
use crate::config::GuestDevices;
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::members::Members;
use crate::members::letters::{LetterKind, MoveQuestion, MoveWord};
use crate::node::Node;
use crate::node::define::stored;
use crate::partition::lifecycle::LifecycleView;
use crate::partition::resume::machine_here;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use arrayvec::ArrayString;
use cluster::id::MemberId;
use cluster::post::ReadMail;

/// Acts on a message.
pub fn receive(node: &'static Node, members: &'static Members, letter: &ReadMail) {
    let slot = letter.from.slot;
    match LetterKind::of(letter.kind) {
        Some(LetterKind::Text) => {
            let rows = members.rows();
            let sender = rows.iter().find(|row| row.id == letter.from);
            let text = String::from_utf8_lossy(&letter.body);
            let name = sender.map_or("", |row| row.name());
            report(&ConsoleEvent::Mail { node: name, slot, text: &text });
        }
        Some(LetterKind::MoveAsked) => {
            if let Some(question) = MoveQuestion::decode(&letter.body) {
                members.desk.hurry(time::now_ns().saturating_add(RESERVED_NS));
                node.host.tasks.start(answer(node, members, letter.from, question));
            }
        }
        Some(LetterKind::MoveAnswered) => {
            let word = MoveWord::decode(&letter.body);
            word.into_iter().for_each(|word| node.moves.put(answers, word));
        }
        Some(LetterKind::MoveEnded) => {
            let word = MoveWord::decode(&letter.body);
            word.into_iter().for_each(|word| node.moves.put(ends, word));
        }
        Some(LetterKind::Drain) => match letter.body.first() {
            Some(0) => drain::end(node),
            _ => {
                // Its events tell what becomes of it.
                let _ = drain::begin(node);
            }
        },
        None => {}
    }
}

/// Cuts a reason so that it fits a message.
pub(super) fn cut(text: &str) -> ArrayString<256> {
    let mut reason = ArrayString::new();
    let mut letters = text.chars();
    while letters.next().is_some_and(|letter| reason.try_push(letter).is_ok()) {}
    reason
}

async fn answer(
    node: &'static Node,
    members: &'static Members,
    from: MemberId,
    question: MoveQuestion,
) {
    let refused = judge(node, from, &question).await.err().map(|reason| cut(&reason));
    let word = MoveWord { number: question.number, refused };
    // Without an answer the source gives up, and asks again if it wants to.
    let _ = members.desk.send(from, LetterKind::MoveAnswered, &word.encode());
}

/// Keeps room for a partition of another member, or says why there is none.
async fn judge(node: &'static Node, from: MemberId, question: &MoveQuestion) -> Result<(), String> {
    let now = time::now_ns();
    if node.registry.is_ending() {
        return Err("the machine is ending".into());
    }
    if node.moves.is_draining() {
        return Err("it gives its own partitions away".into());
    }
    machine_here(node.host, GuestDevices::default())
        .keeps(&question.promise)
        .map_err(|error| format!("{error}"))?;
    if node.host.spaces.find_in_log(question.space).is_none() {
        return Err("it does not reach the disk of the partition's paging space".into());
    }
    let name = &*question.name;
    let others = node.moves.reserved_beside(name, now);
    let there = node.partitions().find(|(_, shared)| shared.name() == name);
    match there {
        Some((_, shared)) if shared.view() == LifecycleView::Stopped && shared.stored.is_some() => {
        }
        Some((_, shared)) => {
            return Err(format!("it has a partition of this name: {}", shared.view().as_str()));
        }
        None => {
            let promised: Vec<_> =
                others.iter().map(|one| (&*one.name, one.memory_bytes)).collect();
            let checked = stored::check_stored(node, name, &promised).await;
            checked.map_err(|error| format!("{error}"))?;
        }
    }
    let reservation = MoveReservation {
        from,
        number: question.number,
        name: question.name,
        memory_bytes: question.memory_bytes,
        policy: question.policy,
        until_ns: now.saturating_add(RESERVED_NS),
    };
    match node.moves.reserve(reservation, now) {
        true => Ok(()),
        false => Err("others are on their way to it: try again later".into()),
    }
}
