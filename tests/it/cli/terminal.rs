//! `offpeak watch`, on a terminal of its own and without one.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use tokio::time::sleep;

use super::{
    World, offpeak,
    scripted::{Scripted, hanging, known},
};
use crate::kill::{PATIENCE, apart, soon};

/// Killed where the test fails.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail where it has ended and was waited for.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A terminal: our end, and the one that a program gets.
pub fn terminal() -> (OwnedFd, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    (ours, theirs.into())
}

fn resize(terminal: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

/// Reads until `mark` has come.
pub fn until(pieces: &mpsc::Receiver<Vec<u8>>, mark: &str) {
    read_until(pieces, mark, |text| text.contains(mark));
}

/// Reads until a whole drawing has come that `is` so.
fn until_drawn(pieces: &mpsc::Receiver<Vec<u8>>, what: &str, is: impl Fn(&str) -> bool) {
    read_until(pieces, what, |text| {
        let drawings: Vec<&str> = text.split("\u{1b}[1;1H").collect();
        let whole = drawings.len().saturating_sub(1);
        drawings[..whole].iter().skip(1).any(|drawing| is(drawing))
    });
}

fn read_until(pieces: &mpsc::Receiver<Vec<u8>>, mark: &str, is: impl Fn(&str) -> bool) {
    let mut text = String::new();
    while !is(&text) {
        match pieces.recv_timeout(PATIENCE) {
            Ok(piece) => text += &String::from_utf8_lossy(&piece),
            Err(error) => panic!("no {mark:?}: {error}\n{text:?}"),
        }
    }
}

const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

/// Starts a command on a terminal; with what it writes there.
pub fn on_terminal(
    mut command: Command,
    (ours, theirs): (&OwnedFd, &OwnedFd),
) -> (Running, mpsc::Receiver<Vec<u8>>) {
    resize(ours, 30, 100);
    let end = || Stdio::from(theirs.try_clone().unwrap());
    command
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .env("TERM", "xterm");
    let child = Running(command.spawn().unwrap());
    let (pieces, read) = mpsc::channel();
    let mut reader = File::from(ours.try_clone().unwrap());
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = reader.read(&mut piece) {
            if pieces.send(piece[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    (child, read)
}

fn is_canonical(terminal: &OwnedFd) -> bool {
    let modes = tcgetattr(terminal).unwrap().local_modes;
    modes.contains(LocalModes::ICANON)
}

async fn ended_by(key: &'static [u8]) {
    let world = World::start(&[]).await;
    let (ours, theirs) = terminal();
    assert!(is_canonical(&theirs));
    let command = offpeak(&["watch", "--url", &world.base()]);
    let (mut child, read) = on_terminal(command, (&ours, &theirs));
    let watching = apart("its end", move || {
        until(&read, ENTER);
        until(&read, "0 queued");
        assert!(!is_canonical(&theirs), "keys come as they are pressed");
        // Smaller: what is drawn fits.
        resize(&ours, 3, 40);
        kill_process(Pid::from_child(&child.0), Signal::WINCH).unwrap();
        let (third, fourth) = ("\u{1b}[3;1H", "\u{1b}[4;1H");
        until_drawn(&read, "a drawing of three rows", |drawing| {
            drawing.contains("0 queued") && drawing.contains(third) && !drawing.contains(fourth)
        });
        File::from(ours.try_clone().unwrap())
            .write_all(key)
            .unwrap();
        until(&read, LEAVE);
        let ended = child.0.wait().unwrap();
        assert!(is_canonical(&theirs), "the terminal is as it was");
        ended
    });
    let ended = watching.await;
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_keeps_nobody_from_ending_it() {
    let server = Scripted::start(|call| match call.nth {
        0 => known(),
        _ => hanging(),
    })
    .await;
    let (ours, theirs) = terminal();
    let command = offpeak(&["watch", "--url", &server.base]);
    let (mut child, read) = on_terminal(command, (&ours, &theirs));
    let second_look = async {
        while server.calls("GET", "/offpeak/admin/status").len() < 2 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the look that hangs", second_look).await;
    let watching = apart("its end", move || {
        File::from(ours).write_all(b"q").unwrap();
        until(&read, LEAVE);
        (child.0.wait().unwrap(), is_canonical(&theirs))
    });
    let (ended, is_canonical) = watching.await;
    assert_eq!(ended.code(), Some(0));
    assert!(is_canonical, "the terminal is as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_takes_the_terminal_and_gives_it_back() {
    ended_by(b"q").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_gives_it_back_too() {
    ended_by(&[3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_terminal_it_says_a_line_a_second() {
    let world = World::start(&[]).await;
    let mut command = offpeak(&["watch", "--url", &world.base()]);
    let mut child = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let server = world.server.up();
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let reading = apart("two lines", move || {
        let first = lines.next().unwrap().unwrap();
        (first, lines.next().unwrap().unwrap(), lines)
    });
    let (first, second, mut lines) = reading.await;
    for line in [&first, &second] {
        assert!(
            line.ends_with("running: 0 open (0 queued, 0 in 0 batches, 0 live)"),
            "{line}"
        );
    }
    assert_ne!(first, second, "the time");
    // A server that goes is told, and looked for.
    world.server.signal(Signal::KILL);
    let gone = apart("the loss", move || {
        lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("no answer")))
    });
    let gone = gone.await.unwrap().unwrap();
    assert!(gone.contains(&*server.base), "{gone}");
    kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
    let ended = apart("its end", move || child.0.wait().unwrap());
    assert_eq!(ended.await.code(), Some(0));
}
