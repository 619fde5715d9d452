//! Reads scenario files. Every error names the file, the line and the column, and says what was
//! expected there.

use std::error::Error;
use std::fmt::{self, Display, Formatter};

use tcp_common::{CloseKind, End, Flags, Rules, Segment, State};

use super::{Close, Event, Expected, Location, MS, QuotingError, Scenario, Step};

/// Why a scenario file cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct ParseError {
    file: String,
    line: usize,
    column: usize,
    message: String,
}

impl Display for ParseError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

impl Error for ParseError {}

type Result<T> = std::result::Result<T, ParseError>;

/// Reads the scenarios of a file.
///
/// # Errors
///
/// The first line that is not understood, or the first scenario that is not complete.
pub fn parse(file: &str, text: &str) -> Result<Vec<Scenario>> {
    let mut scenarios = Vec::new();
    let mut draft: Option<Draft> = None;
    for (index, line) in text.lines().enumerate() {
        let mut cursor = Cursor::new(file, index + 1, line);
        if cursor.is_at_end() {
            continue;
        }
        if cursor.eat_word("scenario") {
            scenarios.extend(draft.take().map(Draft::finish).transpose()?);
            draft = Some(Draft::new(&mut cursor)?);
        } else {
            match &mut draft {
                Some(draft) => draft.line(&mut cursor)?,
                None => return Err(cursor.expected("`scenario ID TITLE`")),
            }
        }
        if !cursor.is_at_end() {
            return Err(cursor.expected("the end of the line"));
        }
    }
    scenarios.extend(draft.map(Draft::finish).transpose()?);
    Ok(scenarios)
}

/// A scenario whose lines are being read.
struct Draft<'a> {
    /// First line of the scenario, for errors about the whole.
    start: Cursor<'a>,
    scenario: Scenario,
    /// Whether a line `close none` was read.
    creates_no_connection: bool,
}

impl<'a> Draft<'a> {
    fn new(cursor: &mut Cursor<'a>) -> Result<Draft<'a>> {
        let start = cursor.clone();
        let id = cursor.word("an id such as S001")?.to_owned();
        let title = cursor.text("a title")?.to_owned();
        let scenario = Scenario {
            id,
            title,
            source: String::new(),
            cites: Vec::new(),
            rules: Rules::RFC,
            requires: [None; 2],
            isn: None,
            steps: Vec::new(),
            closes: Vec::new(),
        };
        Ok(Draft { start, scenario, creates_no_connection: false })
    }

    fn finish(self) -> Result<Scenario> {
        let missing = |what: &str| Err(self.start.error(format!("{} has no {what}", self.scenario.id)));
        if self.scenario.source.is_empty() {
            return missing("`source` line");
        }
        if !self.scenario.steps.iter().any(|step| matches!(step.event, Event::Seen(..))) {
            return missing("segment that the tap sees");
        }
        if self.scenario.closes.is_empty() != self.creates_no_connection {
            return missing("`close` line, or has both `close none` and others");
        }
        Ok(self.scenario)
    }

    fn line(&mut self, cursor: &mut Cursor<'a>) -> Result<()> {
        let scenario = &mut self.scenario;
        if cursor.eat_word("source") {
            scenario.source = cursor.text("where the scenario comes from")?.to_owned();
        } else if cursor.eat_word("rules") {
            while !cursor.is_at_end() {
                scenario.cites.push(cursor.rule()?);
            }
        } else if cursor.eat_word("isn") {
            scenario.isn = Some((cursor.number("the ISN of end a")?, cursor.number("the ISN of end b")?));
        } else if cursor.eat_word("msl") {
            let two_msl_ns = 2 * MS * cursor.number::<u64>("a maximum segment lifetime in ms")?;
            scenario.rules.time_wait_local_ns = two_msl_ns;
            scenario.rules.time_wait_remote_ns = two_msl_ns;
        } else if cursor.eat_word("rfc1337") {
            scenario.rules.rfc1337 = 1;
        } else if cursor.eat_word("linux-time-wait") {
            scenario.rules.linux_restart_local = 1;
            scenario.rules.linux_restart_remote = 1;
        } else if cursor.eat_word("idle") {
            let state = cursor.state()?;
            scenario.rules.silence_ns[state as usize] = MS * cursor.number::<u64>("a time in ms")?;
        } else if cursor.eat_word("local") {
            scenario.requires[cursor.end()? as usize] = Some(Location::Local);
        } else if cursor.eat_word("remote") {
            scenario.requires[cursor.end()? as usize] = Some(Location::Remote);
        } else if cursor.eat_word("close") {
            if cursor.eat_word("none") {
                self.creates_no_connection = true;
            } else {
                scenario.closes.push(cursor.close()?);
            }
        } else {
            let previous_ms = scenario.steps.last().map(|step| step.at_ms);
            scenario.steps.push(cursor.step(previous_ms)?);
        }
        Ok(())
    }
}

/// A position in a line.
#[derive(Clone)]
struct Cursor<'a> {
    file: &'a str,
    number: usize,
    line: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the first character of a line that is not white space. Ignores the comment, which begins
    /// with `#`.
    fn new(file: &'a str, number: usize, line: &'a str) -> Cursor<'a> {
        let code = line.split_once('#').map_or(line, |(code, _comment)| code);
        let mut cursor = Cursor { file, number, line: code.trim_end(), at: 0 };
        cursor.skip_spaces();
        cursor
    }

    fn error(&self, message: String) -> ParseError {
        ParseError { file: self.file.into(), line: self.number, column: self.at + 1, message }
    }

    fn expected(&self, what: &str) -> ParseError {
        let found = match self.rest().split_whitespace().next() {
            Some(word) => format!("`{word}`"),
            None => "the end of the line".into(),
        };
        self.error(format!("expected {what}, found {found}"))
    }

    fn rest(&self) -> &'a str {
        &self.line[self.at..]
    }

    fn is_at_end(&self) -> bool {
        self.rest().is_empty()
    }

    fn skip_spaces(&mut self) {
        self.at = self.line.len() - self.rest().trim_start().len();
    }

    fn advance(&mut self, len: usize) -> &'a str {
        let passed = &self.rest()[..len];
        self.at += len;
        self.skip_spaces();
        passed
    }

    /// Passes these characters, if they come next.
    fn eat(&mut self, symbol: &str) -> bool {
        let comes_next = self.rest().starts_with(symbol);
        if comes_next {
            self.advance(symbol.len());
        }
        comes_next
    }

    /// Passes this word, if it comes next.
    fn eat_word(&mut self, word: &str) -> bool {
        self.peek_word() == word && self.eat(word)
    }

    fn require(&mut self, symbol: &str) -> Result<()> {
        if self.eat(symbol) { Ok(()) } else { Err(self.expected(&format!("`{symbol}`"))) }
    }

    fn peek_word(&self) -> &'a str {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let rest = self.rest();
        &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())]
    }

    fn word(&mut self, what: &str) -> Result<&'a str> {
        match self.peek_word() {
            "" => Err(self.expected(what)),
            word => Ok(self.advance(word.len())),
        }
    }

    /// The rest of the line.
    fn text(&mut self, what: &str) -> Result<&'a str> {
        if self.is_at_end() { Err(self.expected(what)) } else { Ok(self.advance(self.rest().len())) }
    }

    fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T> {
        let rest = self.rest();
        let sign = usize::from(rest.starts_with('-'));
        let digits = rest[sign..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - sign);
        match rest[..sign + digits].parse() {
            Ok(number) => {
                self.advance(sign + digits);
                Ok(number)
            }
            Err(_) => Err(self.expected(what)),
        }
    }

    /// Reads one of a few words, such as a close kind.
    fn choice(&mut self, what: &str, choices: &[&str]) -> Result<String> {
        let word = self.peek_word();
        if choices.contains(&word) {
            Ok(self.advance(word.len()).into())
        } else {
            Err(self.expected(&format!("{what} ({})", choices.join(", "))))
        }
    }

    /// Reads several words, separated by `|`.
    fn choices(&mut self, what: &str, choices: &[&str]) -> Result<Vec<String>> {
        let mut chosen = vec![self.choice(what, choices)?];
        while self.eat("|") {
            chosen.push(self.choice(what, choices)?);
        }
        Ok(chosen)
    }

    fn rule(&mut self) -> Result<u8> {
        let number = self.peek_word().strip_prefix('R').and_then(|digits| digits.parse().ok());
        match number {
            Some(number @ 1..=LAST_RULE) => {
                self.advance(self.peek_word().len());
                Ok(number)
            }
            _ => Err(self.expected(&format!("a rule, R1 to R{LAST_RULE}"))),
        }
    }

    fn end(&mut self) -> Result<End> {
        Ok(if self.choice("an end", &["a", "b"])? == "a" { End::A } else { End::B })
    }

    fn state(&mut self) -> Result<State> {
        let word = self.peek_word();
        match State::ALL.into_iter().find(|state| state.rfc_name() == word) {
            Some(state) => {
                self.advance(word.len());
                Ok(state)
            }
            None => Err(self.expected(&format!("a state ({})", State::ALL.map(State::rfc_name).join(", ")))),
        }
    }

    /// `90 b> F. 201:201(0) ack 102 -> TIME-WAIT until 60090, LAST-ACK`, or `60091 tick -> CLOSED, CLOSED`.
    fn step(&mut self, previous_ms: Option<u64>) -> Result<Step> {
        let at_ms = if self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            let start = self.clone();
            let at_ms = self.number("a time in ms")?;
            match previous_ms {
                Some(previous) if at_ms < previous => {
                    return Err(start.expected(&format!("a time from {previous} ms on")));
                }
                _ => at_ms,
            }
        } else {
            previous_ms.map_or(0, |previous| previous + DEFAULT_PAUSE_MS)
        };
        let event = if self.eat_word("tick") {
            Event::Tick
        } else if self.eat("a>") {
            self.segment(End::A)?
        } else if self.eat("b>") {
            self.segment(End::B)?
        } else {
            return Err(self.expected(
                "a segment (`a>` or `b>`), `tick`, `close`, `source`, `rules`, `isn`, `msl`, `rfc1337`, `linux-time-wait`, \
                 `idle`, `local` or `remote`",
            ));
        };
        let expected = match event {
            Event::Missed(..) => None,
            Event::Seen(..) | Event::Quoted(..) | Event::Tick => {
                self.require("->")?;
                let a = self.expectation()?;
                self.require(",")?;
                Some([a, self.expectation()?])
            }
        };
        Ok(Step { at_ms, event, expected })
    }

    /// `S. 0:0(0) ack 1 win 1000 <wscale 7, TS val 100 ecr 50>`, and `unseen` if the tap misses it, or
    /// `icmp 3/3` if not this segment is seen but an ICMP error that quotes it.
    fn segment(&mut self, sender: End) -> Result<Event> {
        let mut segment =
            Segment { flags: self.flags()?, window: 65_535, wire_segments: 1, ..Segment::default() };
        let seq: i64 = self.number("a sequence number, as in `1:101(100)`")?;
        self.require(":")?;
        let range_end = self.clone();
        let end: i64 = self.number("the sequence number after the payload, as in `1:101(100)`")?;
        self.require("(")?;
        segment.payload_len = self.number("the length of the payload, as in `1:101(100)`")?;
        self.require(")")?;
        if end != seq + i64::from(segment.payload_len) {
            return Err(range_end.expected(&format!("{}", seq + i64::from(segment.payload_len))));
        }
        segment.seq = seq as u32;
        if segment.flags.has(Flags::ACK) {
            self.require("ack")?;
            segment.ack = self.number::<i64>("an acknowledgment number")? as u32;
        }
        if self.eat_word("win") {
            segment.window = self.number("a window of at most 65535")?;
        }
        if self.eat("<") {
            self.option(&mut segment)?;
            while self.eat(",") {
                self.option(&mut segment)?;
            }
            self.require(">")?;
        }
        Ok(if self.eat_word("unseen") {
            Event::Missed(sender, segment)
        } else if self.eat_word("icmp") {
            let kind = self.number("the type of an ICMP message")?;
            self.require("/")?;
            Event::Quoted(sender, segment, QuotingError { kind, code: self.number("its code")? })
        } else {
            Event::Seen(sender, segment)
        })
    }

    fn option(&mut self, segment: &mut Segment) -> Result<()> {
        if self.eat_word("wscale") {
            segment.wscale = self.number("a shift")?;
            segment.options |= Segment::HAS_WSCALE;
        } else if self.eat_word("TS") {
            self.require("val")?;
            segment.tsval = self.number("a timestamp")?;
            self.require("ecr")?;
            segment.tsecr = self.number("a timestamp echo")?;
            segment.options |= Segment::HAS_TIMESTAMP;
        } else {
            return Err(self.expected("an option (`wscale N` or `TS val N ecr N`)"));
        }
        Ok(())
    }

    /// Letters as packetdrill writes them: `F.` is FIN and ACK.
    fn flags(&mut self) -> Result<Flags> {
        let word = self.peek_word();
        let mut flags = 0;
        for letter in word.chars() {
            flags |= match letter {
                'S' => Flags::SYN,
                '.' => Flags::ACK,
                'F' => Flags::FIN,
                'R' => Flags::RST,
                'P' => Flags::PSH,
                'U' => Flags::URG,
                'E' => Flags::ECE,
                'W' => Flags::CWR,
                // AE is in the other byte of the header, which no rule reads.
                'N' => 0,
                _ => return Err(self.expected(FLAGS)),
            };
        }
        if word.is_empty() {
            return Err(self.expected(FLAGS));
        }
        self.advance(word.len());
        Ok(Flags(flags))
    }

    /// `FIN-WAIT-1`, `CLOSING|TIME-WAIT until 60080`.
    fn expectation(&mut self) -> Result<Expected> {
        let mut states = vec![self.state()?];
        while self.eat("|") {
            states.push(self.state()?);
        }
        let until = self.eat_word("until").then(|| self.number("the end of TIME-WAIT in ms")).transpose()?;
        Ok(Expected { states, time_wait_until_ms: until, proved: None })
    }

    /// `fin_4seg opener a closer a fins ab complete`.
    fn close(&mut self) -> Result<Close> {
        let kinds = self.choices("a close kind", &CloseKind::ALL.map(CloseKind::name))?;
        self.require("opener")?;
        let opener = self.choice("who opened", &["a", "b", "both", "unknown"])?;
        let none = || "none".to_owned();
        let mut close = Close {
            kinds,
            opener,
            closers: vec![none()],
            aborter: none(),
            fins: String::new(),
            complete: false,
            state_lost: None,
            confidence: None,
            bytes: None,
        };
        if self.eat_word("closer") {
            close.closers = self.choices("who closed first", &["a", "b", "both", "none"])?;
        }
        if self.eat_word("aborter") {
            close.aborter = self.choice("who reset the connection", &["a", "b"])?;
        }
        if self.eat_word("fins") {
            close.fins = self.choice("who sent a FIN", &["a", "b", "ab"])?;
        }
        close.complete = self.eat_word("complete");
        if self.eat_word("state-lost") {
            close.state_lost = Some(self.choice("whether state was lost", &["yes", "no"])? == "yes");
        }
        if self.eat_word("confidence") {
            close.confidence =
                Some(self.choice("how much was seen", &["exact", "gap", "midstream", "one_way"])?);
        }
        if self.eat_word("bytes") {
            close.bytes = Some([self.number("the bytes of end a")?, self.number("the bytes of end b")?]);
        }
        Ok(close)
    }
}

/// Time between the previous step and a step without a time.
const DEFAULT_PAUSE_MS: u64 = 10;
/// The number of the last rule of docs/STATE_MACHINE.md.
pub const LAST_RULE: u8 = 29;
const FLAGS: &str = "flags (`S` SYN, `.` ACK, `F` FIN, `R` RST, `P` PSH, `U` URG, `E` ECE, `W` CWR, `N` AE)";
