use super::*;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use tempfile::NamedTempFile;

/// A client after the handshake, in the transmission phase.
struct Peer(TcpStream);

impl Peer {
    fn new(served: &Path, disk_len: u64) -> Self {
        let text = served.to_str().expect("text");
        let address = text.strip_prefix("nbd:").expect("an address");
        let mut stream = TcpStream::connect(address).expect("a server");
        let mut hello = [0; 18];
        stream.read_exact(&mut hello).expect("a greeting");
        assert_eq!(&hello, b"NBDMAGICIHAVEOPT\0\x01");
        // An option that the server does not know (structured replies), then GO with an empty name.
        stream.write_all(&[0, 0, 0, 1]).expect("flags");
        stream
            .write_all(b"IHAVEOPT\0\0\0\x08\0\0\0\0IHAVEOPT\0\0\0\x07\0\0\0\x06\0\0\0\0\0\0")
            .expect("options");
        let mut replies = [0; 20 + 32 + 20];
        stream.read_exact(&mut replies).expect("replies");
        assert_eq!(replies[12..16], [0x80, 0, 0, 1]);
        assert_eq!(replies[42..50], disk_len.to_be_bytes());
        Self(stream)
    }

    fn ask(&mut self, kind: u8, handle: u8, at: u64, len: u32, data: &[u8]) {
        let head = [
            &[0x25, 0x60, 0x95, 0x13, 0, 0, 0, kind][..],
            &[handle; 8],
            &at.to_be_bytes(),
            &len.to_be_bytes(),
            data,
        ];
        self.0.write_all(&head.concat()).expect("a server");
    }

    /// Returns the handle and the error of the next answer.
    fn answer(&mut self) -> (u8, u32) {
        let mut head = [0; 16];
        self.0.read_exact(&mut head).expect("an answer");
        assert_eq!(head[..4], [0x67, 0x44, 0x66, 0x98]);
        (head[8], u32::from_be_bytes([head[4], head[5], head[6], head[7]]))
    }

    fn data<const N: usize>(&mut self) -> [u8; N] {
        let mut data = [0; N];
        self.0.read_exact(&mut data).expect("data");
        data
    }
}

const LEN: u64 = 8192;

fn image() -> NamedTempFile {
    let image = NamedTempFile::new().expect("a file");
    image.as_file().set_len(LEN).expect("its size");
    image
}

#[test]
fn what_one_node_writes_another_one_reads() {
    let image = image();
    let disk = NbdDisk::new(image.path(), Recording::Bytes).expect("a server");
    let mut peers = ["a", "b"].map(|node| Peer::new(&disk.serve(node).expect("a port"), LEN));
    peers[0].ask(1, 7, 512, 4, b"pool");
    assert_eq!(peers[0].answer(), (7, 0));
    peers[1].ask(0, 8, 510, 8, &[]);
    assert_eq!((peers[1].answer(), peers[1].data()), ((8, 0), *b"\0\0pool\0\0"));
    peers[1].ask(6, 9, 512, 4, &[]);
    peers[1].ask(3, 10, 0, 0, &[]);
    peers[1].ask(0, 11, LEN - 2, 4, &[]);
    assert_eq!(
        [peers[1].answer(), peers[1].answer(), peers[1].answer()],
        [(9, 0), (10, 0), (11, 22)]
    );
    let log = disk.log();
    let kinds: Vec<_> =
        log.iter().map(|entry| (entry.node, entry.kind, entry.bytes.start)).collect();
    assert_eq!(
        kinds,
        [
            ("a", RequestKind::Write, 512),
            ("b", RequestKind::Read, 510),
            ("b", RequestKind::WriteZeroes, 512),
            ("b", RequestKind::Flush, 0),
            ("b", RequestKind::Read, LEN - 2)
        ]
    );
    assert_eq!(log[0].data.as_deref(), Some(b"pool".as_slice()));
    assert!(log.iter().all(|entry| entry.answered.is_some()));
}

#[test]
fn a_rule_may_decide_about_all_that_follows() {
    let image = image();
    let disk = NbdDisk::new(image.path(), Recording::Places).expect("a server");
    let mut peer = Peer::new(&disk.serve("a").expect("a port"), LEN);
    let failure = Action::Fail(NbdError::Io);
    disk.rule(Rule {
        kinds: &[RequestKind::Flush],
        skip: 1,
        afterwards: Some(failure),
        ..Rule::all(failure)
    });
    for (handle, kind) in [(1, 3), (2, 6), (3, 3), (4, 6)] {
        peer.ask(kind, handle, 0, 0, &[]);
    }
    // An empty range matches no rule, so request 4 passes although the rule now covers all kinds.
    assert_eq!([(); 4].map(|()| peer.answer()), [(1, 0), (2, 0), (3, 5), (4, 0)]);
    peer.ask(6, 5, 0, 512, &[]);
    assert_eq!(peer.answer(), (5, 5));
    assert_eq!(disk.first_met().map(|entry| entry.kind), Some(RequestKind::Flush));
}

#[test]
fn rules_fail_hold_and_keep_what_fits() {
    let image = image();
    let disk = NbdDisk::new(image.path(), Recording::Places).expect("a server");
    let mut peer = Peer::new(&disk.serve("a").expect("a port"), LEN);
    let writes = Rule { kinds: &[RequestKind::Write], bytes: 0..512, ..Rule::all(Action::Keep) };
    disk.rule(Rule { node: Some("b"), ..Rule::all(Action::Fail(NbdError::Io)) });
    disk.rule(Rule { skip: 1, times: 1, ..writes.clone() });
    disk.rule(Rule {
        bytes: 1024..1536,
        times: 1,
        action: Action::Fail(NbdError::NoSpace),
        ..writes.clone()
    });
    disk.rule(Rule {
        bytes: 2048..2560,
        action: Action::Hold(Duration::from_millis(20)),
        ..writes
    });
    let byte = |at| {
        let mut byte = [0];
        image.as_file().read_exact_at(&mut byte, at).map(|()| byte[0]).expect("the image")
    };
    peer.ask(1, 1, 0, 1, b"1");
    peer.ask(1, 2, 0, 1, b"2");
    peer.ask(1, 3, 1024, 1, b"3");
    peer.ask(1, 4, 1024, 1, b"4");
    peer.ask(1, 5, 2048, 1, b"5");
    peer.ask(0, 6, 0, 1, &[]);
    assert_eq!([peer.answer(), peer.answer(), peer.answer()], [(1, 0), (3, 28), (4, 0)]);
    assert_eq!(
        (peer.answer(), peer.data()),
        ((6, 0), *b"1"),
        "a held request keeps no other waiting"
    );
    assert_eq!(peer.answer(), (5, 0));
    assert_eq!([0, 1024, 2048].map(byte), *b"145");
    assert_eq!(disk.log()[1].answered, None);
    disk.let_go();
    assert_eq!((peer.answer(), byte(0)), ((2, 0), b'2'));
}
