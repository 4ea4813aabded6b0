use super::*;
use crate::decree::Decree;
use crate::id::Incarnation;

fn id(slot: u16) -> MemberId {
    MemberId { slot, incarnation: Incarnation(100 + u128::from(slot)) }
}

/// Writes the block of a member, as a node does.
fn post(mail: &mut MemberMail, slot: u16) -> MailBlock {
    let block = mail.block(id(slot));
    mail.posting();
    mail.posted();
    block
}

fn read(mail: &mut MemberMail, slot: u16, block: &MailBlock) -> (MailRest, Vec<ClusterEvent>) {
    let mut told = Vec::new();
    let rest = mail.read(id(slot), block, 9_000, &mut |event| told.push(event));
    (rest, told)
}

#[test]
fn a_message_is_read_once_and_leaves_with_its_acknowledgement() {
    let (mut one, mut two) = (MemberMail::new(), MemberMail::new());
    assert_eq!(one.send(id(2), 5, b"hello", 1_000), Ok(1));
    assert!(one.is_stale() && one.waits() && !two.is_stale());
    let first = post(&mut one, 1);
    assert!(!one.is_stale());
    for _ in 0..3 {
        assert_eq!(read(&mut two, 2, &first), (MailRest::Nothing, vec![]));
    }
    let letter = two.take().expect("a message");
    assert_eq!(
        (letter.from, letter.number, letter.kind, &letter.body[..]),
        (id(1), 1, 5, &b"hello"[..])
    );
    assert_eq!(two.take(), None);
    let answer = post(&mut two, 2);
    let told = read(&mut one, 1, &answer).1;
    assert_eq!(told, [ClusterEvent::MailRead { slot: 2, number: 1, took_ns: 8_000 }]);
    assert!(!one.waits() && one.is_stale());
    // The acknowledgement goes when the message has gone.
    let second = post(&mut one, 1);
    read(&mut two, 2, &second);
    assert!(two.is_stale() && two.block(id(2)).acks.is_empty());
    assert_eq!(one.send(id(2), 5, b"again", 2_000), Ok(2));
    read(&mut two, 2, &one.block(id(1)));
    assert_eq!(two.take().map(|letter| letter.number), Some(2));
}

#[test]
fn messages_for_others_and_for_an_earlier_incarnation_are_left_alone() {
    let (mut one, mut two) = (MemberMail::new(), MemberMail::new());
    one.send(id(3), 1, b"", 0).expect("room");
    one.send(MemberId { slot: 2, incarnation: Incarnation(1) }, 1, b"", 0).expect("room");
    read(&mut two, 2, &one.block(id(1)));
    assert!(two.take().is_none() && !two.is_stale());
}

#[test]
fn what_has_no_room_comes_later_and_in_order() {
    let (mut one, mut two) = (MemberMail::new(), MemberMail::new());
    for n in 0..MAX_OUTGOING {
        assert_eq!(one.send(id(2), n as u16, b"", 0), Ok(n as u64 + 1));
    }
    assert_eq!(one.send(id(2), 9, b"", 0), Err(MailError::Full));
    assert_eq!(MemberMail::new().send(id(2), 9, &[0; MAX_BODY + 1], 0), Err(MailError::TooLong));
    let block = one.block(id(1));
    let mut kinds = Vec::new();
    assert_eq!(read(&mut two, 2, &block).0, MailRest::More);
    kinds.extend(core::iter::from_fn(|| two.take()).map(|letter| letter.kind));
    assert_eq!(read(&mut two, 2, &block).0, MailRest::Nothing);
    kinds.extend(core::iter::from_fn(|| two.take()).map(|letter| letter.kind));
    assert_eq!(kinds, (0..MAX_OUTGOING as u16).collect::<Vec<_>>());
    let told = read(&mut one, 1, &two.block(id(2))).1;
    assert_eq!((told.len(), one.waits()), (MAX_OUTGOING, false));
}

#[test]
fn the_mail_of_a_fenced_member_is_dropped_and_told() {
    let mut state = ClusterState::new(4096);
    for slot in 0..3 {
        state.apply(&Decree::Member(id(slot))).expect("a free slot");
    }
    let mut mail = MemberMail::new();
    mail.send(id(1), 0, b"", 0).expect("room");
    mail.send(id(2), 0, b"", 0).expect("room");
    mail.posting();
    let mut told = Vec::new();
    mail.settle(&state, &mut |event| told.push(event));
    assert!(told.is_empty() && !mail.is_stale());
    state.apply(&Decree::Fence { who: 1, heir: 0 }).expect("both are up");
    mail.settle(&state, &mut |event| told.push(event));
    assert_eq!(told, [ClusterEvent::MailLost { slot: 1, number: 1 }]);
    assert!(mail.is_stale() && mail.waits());
}
