//! The terminal: taken for a while, and given back as it was.

use std::io::{self, Stdout, Write as _, stdout};

use anstream::{AutoStream, ColorChoice};
use crossterm::{
    cursor::{Hide, MoveTo, Show},
    event::{Event as Input, EventStream, KeyCode, KeyEventKind, KeyModifiers},
    execute, queue,
    style::Print,
    terminal::{
        self, BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap,
        EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    },
};
use futures_util::StreamExt as _;

pub struct Screen {
    out: Stdout,
    colours: bool,
    input: EventStream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    End,
    Redraw,
}

impl Screen {
    pub fn open() -> io::Result<Screen> {
        let mut out = stdout();
        terminal::enable_raw_mode()?;
        let screen = Screen {
            colours: AutoStream::choice(&out) != ColorChoice::Never,
            input: EventStream::new(),
            out: stdout(),
        };
        // Lines that are too long end at the edge.
        execute!(out, EnterAlternateScreen, Hide, DisableLineWrap)?;
        Ok(screen)
    }

    /// As many lines as there is room for.
    pub fn draw(&mut self, text: &str) -> io::Result<()> {
        let (_, height) = terminal::size()?;
        let plain;
        let text = match self.colours {
            true => text,
            false => {
                plain = anstream::adapter::strip_str(text).to_string();
                &plain
            }
        };
        queue!(self.out, BeginSynchronizedUpdate)?;
        for (row, line) in (0..height).zip(text.lines()) {
            let rest = Clear(ClearType::UntilNewLine);
            queue!(self.out, MoveTo(0, row), Print(line), rest)?;
        }
        let drawn = text.lines().count().min(usize::from(height));
        if let Ok(row) = u16::try_from(drawn)
            && row < height
        {
            let rest = Clear(ClearType::FromCursorDown);
            queue!(self.out, MoveTo(0, row), rest)?;
        }
        queue!(self.out, EndSynchronizedUpdate)?;
        self.out.flush()
    }

    /// What the person at the terminal does.
    pub async fn event(&mut self) -> io::Result<Event> {
        loop {
            match self.input.next().await.transpose()? {
                None => return Ok(Event::End),
                Some(Input::Resize(..)) => return Ok(Event::Redraw),
                Some(Input::Key(key)) if key.kind == KeyEventKind::Press => {
                    let control = key.modifiers.contains(KeyModifiers::CONTROL);
                    match key.code {
                        KeyCode::Char('c') if control => return Ok(Event::End),
                        KeyCode::Char('q') | KeyCode::Esc => return Ok(Event::End),
                        _ => {}
                    }
                }
                Some(_) => {}
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ended = execute!(self.out, EnableLineWrap, Show, LeaveAlternateScreen);
        let _restored = terminal::disable_raw_mode();
    }
}
