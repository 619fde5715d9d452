use std::path::Path;
use std::time::Duration;

use clap::CommandFactory as _;
use tcp_common::{Rules, State};

use crate::kernel::Ingress;

use super::*;

/// Reads a command line. The tests set no environment: what clap does with it is clap's.
#[track_caller]
fn parsed(line: &str) -> Command {
    match Cli::try_parse_from(line.split(' ')) {
        Ok(cli) => cli.command,
        Err(error) => panic!("{error}"),
    }
}

#[track_caller]
fn refused(line: &str) -> String {
    Cli::try_parse_from(line.split(' ')).expect_err(line).to_string()
}

#[track_caller]
fn run(line: &str, file: Option<&str>) -> Options {
    let file = file.map(|text| ConfigFile::parse(Path::new("f.toml"), text)).transpose();
    let file = file.unwrap_or_else(|error| panic!("{error}")).unwrap_or_default();
    let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    match with_file(&words, &file) {
        Ok(Cli { command: Command::Run(options), .. }) => options,
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn misread(file: &str) -> String {
    ConfigFile::parse(Path::new("f.toml"), file).expect_err(file).to_string()
}

const FILE: &str = r#"
interface = ["eth7"]
listen = "0.0.0.0:1"
socket = "/tmp/file"
ingress = "tc"
max-flows = 1000
audit-interval = "5m"
msl = "10s"
rfc1337 = true
tw-restart = "fin"

[timeout]
close_wait = "2h"
fin_wait = "never"
"#;

#[test]
fn definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn defaults() {
    let options = run("finwait run", None);
    assert_eq!(options.listen.to_string(), "127.0.0.1:9817");
    assert_eq!(options.socket, Path::new("/run/finwait/finwait.sock"));
    assert_eq!((options.ingress, options.max_flows, options.dry_run), (Ingress::Auto, 262_144, false));
    assert!(options.interfaces.is_empty());
    assert_eq!(options.audit_interval, Some(Duration::from_secs(30)));
    assert_eq!(options.rules(), Rules { linux_restart_local: 1, ..Rules::AGENT });
}

#[test]
fn file_over_default() {
    let options = run("finwait run", Some(FILE));
    assert_eq!(options.interfaces, ["eth7"]);
    assert_eq!(options.listen.to_string(), "0.0.0.0:1");
    assert_eq!(options.socket, Path::new("/tmp/file"));
    assert_eq!((options.ingress, options.max_flows), (Ingress::Tc, 1000));
    assert_eq!(options.audit_interval, Some(Duration::from_secs(300)));
    assert_eq!(options.rules().time_wait_remote_ns, 20_000_000_000);
    assert_eq!(options.rules().time_wait_local_ns, Rules::AGENT.time_wait_local_ns);
    assert_eq!((options.rules().rfc1337, options.rules().linux_restart_local), (1, 0));
    assert_eq!(options.rules().silence_ns[State::CloseWait as usize], 7_200_000_000_000);
    assert_eq!(options.rules().silence_ns[State::FinWait2 as usize], 0);
}

#[test]
fn flag_over_file() {
    let options = run(
        "finwait run -i a -i b,c --listen [::1]:0 --socket /x --ingress xdp --max-flows 64 --msl 1m \
         --rfc1337=false --tw-restart linux --timeout FIN-WAIT-2=5m --timeout close-wait=1h --dry-run",
        Some(FILE),
    );
    assert_eq!(options.interfaces, ["a", "b", "c"]);
    assert_eq!(options.listen.to_string(), "[::1]:0");
    assert_eq!(options.socket, Path::new("/x"));
    assert_eq!((options.ingress, options.max_flows, options.dry_run), (Ingress::Xdp, 64, true));
    assert_eq!(options.rules().time_wait_remote_ns, 120_000_000_000);
    assert_eq!(options.rules().rfc1337, 0);
    assert_eq!((options.rules().linux_restart_local, options.rules().linux_restart_remote), (1, 1));
    // State by state: FIN-WAIT-1 is still the file's.
    assert_eq!(options.rules().silence_ns[State::FinWait1 as usize], 0);
    assert_eq!(options.rules().silence_ns[State::FinWait2 as usize], 300_000_000_000);
    assert_eq!(options.rules().silence_ns[State::CloseWait as usize], 3_600_000_000_000);
}

#[test]
fn environment_has_every_option_under_its_name() {
    let mut cli = Cli::command();
    cli.build();
    for option in cli.find_subcommand("run").unwrap().get_arguments() {
        let Some(name) =
            option.get_long().filter(|name| !["dry-run", "verbose", "help", "version"].contains(name))
        else {
            continue;
        };
        let variable = format!("FINWAIT_{}", name.to_uppercase().replace('-', "_"));
        assert_eq!(option.get_env(), Some(variable.as_ref()), "{name}");
    }
}

#[test]
fn the_agents_look_can_be_switched_off() {
    for line in ["finwait run --audit-interval 0", "finwait run --audit-interval off"] {
        assert_eq!(run(line, Some(FILE)).audit_interval, None, "{line}");
    }
    assert_eq!(run("finwait run", Some("audit-interval = \"0\"")).audit_interval, None);
    assert_eq!(run("finwait run --audit-interval 1m", None).audit_interval, Some(Duration::from_secs(60)));
    assert!(refused("finwait run --audit-interval 1ms").contains("at least 100ms"));
    assert!(refused("finwait run --audit-interval 3").contains("duration such as"));
}

#[test]
fn mistakes_in_the_file_name_their_line() {
    let error = misread("msl = \"10s\"\nmax_flow = 3\n");
    assert!(
        error.contains("line 2") && error.contains("max_flow") && error.contains("`max-flows`"),
        "{error}"
    );
    for (file, complaint) in [
        ("\nmsl = \"10\"", "duration such as"),
        ("\nmsl = \"0s\"", "from 1s to"),
        ("\nmax-flows = 3", "64..=67108864"),
        ("\nmax-flows = \"many\"", "'--max-flows <N>'"),
        ("\ningress = \"xpd\"", "[possible values: auto, xdp, tc]"),
        ("\nlisten = \"localhost\"", "an address and a port"),
        ("\nlisten = 1.5", "listen cannot have a value of this type"),
        ("\ninterface = 3", "interface cannot have a value of this type"),
        ("\ninterface = [\"lo\", true]", "interface cannot have a value of this type"),
        ("\nsocket = false", "socket cannot have a value of this type"),
        ("\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:2\"]", "a value of this type"),
        ("\ntimeout = { tiem_wait = \"3s\" }", "unknown state `tiem_wait`"),
        ("[timeout]\nclose_wait = \"10\"", "duration such as"),
        ("\ntimeout = { time_wait = \"3s\" }", "twice --msl"),
        ("\ndry-run = true", "unknown option `dry-run`"),
    ] {
        let error = misread(file);
        assert!(error.contains("line 2") && error.contains(complaint), "{error}");
    }
    assert_eq!(run("finwait run", Some("interface = \"lo\"")).interfaces, ["lo"]);
}

#[test]
fn mistakes_in_flags_say_what_is_expected() {
    assert!(refused("finwait run --timeout close_wait").contains("STATE=DURATION"));
    assert!(refused("finwait run --timeout closed=3s").contains("has no idle timeout"));
    assert!(refused("finwait run --timeout big=3s").contains("has no idle timeout"));
    assert!(refused("finwait run --timeout estab=3").contains("duration such as"));
    assert!(refused("finwait run --ingress xpd").contains("[possible values: auto, xdp, tc]"));
    assert!(refused("finwait run --max-flows 3").contains("64..=67108864"));
    assert!(refused("finwait ls -o yaml").contains("[possible values: table, wide, json, ndjson, csv]"));
    assert!(refused("finwait stats -o csv").contains("[possible values: table, json]"));
    assert!(refused("finwait replay").contains("<FILE>"));
}

#[test]
fn filter_is_the_words_that_follow() {
    let Command::Ls(args) = parsed("finwait ls state time-wait -o json and dport = :443 ( port gt 3 )")
    else {
        panic!()
    };
    assert_eq!(args.output, Format::Json);
    let filter = args.filter.filter().unwrap();
    assert_eq!(filter.to_string(), "state time-wait and dport = :443 ( port gt 3 )");
    let Command::Watch(args) = parsed("finwait watch sttae closed") else { panic!() };
    assert!(args.filter.filter().unwrap_err().to_string().contains("did you mean `state`?"));
    assert!(FilterArgs::default().filter().unwrap().is_empty());
}

#[test]
fn replay_and_demo() {
    let Command::Replay(args) = parsed("finwait replay - --events --msl 5s kind refused -vv") else {
        panic!()
    };
    assert!(args.events && args.file == Path::new("-"));
    assert_eq!(args.rules.msl, Duration::from_secs(5));
    assert_eq!(args.filter.filter().unwrap().to_string(), "kind refused");
    let Command::Demo(args) = parsed("finwait demo") else { panic!() };
    assert_eq!(args.ingress, Ingress::Xdp);
    assert_eq!(Cli::try_parse_from(["finwait", "-vv", "status"]).unwrap().verbose, 2);
}

#[test]
fn examples_of_the_help_are_valid() {
    for text in [help::LS_LONG, help::WATCH_LONG, help::AUDIT_LONG, help::REPLAY_LONG, help::RUN] {
        let examples = text.lines().filter_map(|line| line.trim().strip_prefix("finwait "));
        let mut count = 0;
        for example in examples {
            let words = example.split('\'').enumerate().flat_map(|(index, part)| {
                if index % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }
            });
            let cli = Cli::try_parse_from(["finwait"].into_iter().chain(words)).expect(example);
            let filter = match cli.command {
                Command::Ls(args) => args.filter,
                Command::Watch(args) => args.filter,
                Command::Audit(args) => args.filter,
                Command::Replay(args) => args.filter,
                _ => FilterArgs::default(),
            };
            assert!(filter.filter().is_ok(), "{example}");
            count += 1;
        }
        assert!(count > 0);
    }
    let (_, file) = help::RUN.split_once("A configuration file:").unwrap();
    assert_eq!(run("finwait run", Some(file)).max_flows, 1 << 20);
}

/// The file of the package: as it is shipped, and with every example in force.
#[test]
fn the_shipped_file_has_every_option() {
    let shipped = include_str!("../../../packaging/finwait.toml");
    let packaged = Options { history_dir: Some(PACKAGED_DIRECTORY.into()), ..run("finwait run", None) };
    assert_eq!(run("finwait run", Some(shipped)), packaged);
    let keys: String = shipped
        .lines()
        .filter_map(|line| if line.starts_with("history-dir") { Some(line) } else { line.strip_prefix('#') })
        .filter(|line| !line.starts_with(' '))
        .fold(String::new(), |all, line| all + line + "\n");
    assert_eq!(run("finwait run", Some(&keys)).interfaces, ["eth0", "eth1"]);
    let mut cli = Cli::command();
    cli.build();
    for option in cli.find_subcommand("run").unwrap().get_arguments().filter_map(|option| option.get_long()) {
        let in_file = keys.contains(&format!("{option} = ")) || keys.contains(&format!("[{option}]"));
        let only_typed = ["config", "dry-run", "verbose", "help", "version"].contains(&option);
        assert_ne!(in_file, only_typed, "{option}");
    }
    // What is called the default is it.
    let defaults: String = keys
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter(|line| {
            !["interface", "user", "tw-restart", "history-memory", "history-dir"]
                .iter()
                .any(|example| line.starts_with(example))
        })
        .fold(String::new(), |all, line| all + line + "\n");
    assert_eq!(run("finwait run", Some(&defaults)), run("finwait run", None));
}

#[test]
fn the_help_knows_every_kind() {
    for kind in crate::view::CloseKind::ALL {
        assert!(help::LS_LONG.contains(kind.name()), "{}", kind.name());
    }
    assert!(help::LS_LONG.contains(crate::view::UNSEEN));
}

#[test]
fn completions_and_man_pages() {
    let mut text = Vec::new();
    completions(generate::Shell::Bash, &mut text).unwrap();
    assert!(String::from_utf8(text).unwrap().contains("COMPLETE=\"bash\""));
    let mut page = Vec::new();
    man(Some("run"), &mut page).unwrap();
    let page = String::from_utf8(page).unwrap();
    assert!(page.contains(".TH \"FINWAIT-RUN\"") && page.contains("max\\-flows"), "{page}");
    assert!(man(None, &mut Vec::new()).is_ok());
    assert!(man(Some("fly"), &mut Vec::new()).is_err());
}

#[test]
fn the_socket_is_named_before_or_after_the_command() {
    for line in ["finwait --socket /s ls", "finwait ls --socket /s", "finwait ls --socket /s state closed"] {
        assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap().socket.path(), Path::new("/s"), "{line}");
    }
    for line in ["finwait --socket /s run", "finwait run --socket /s"] {
        assert_eq!(run(line, Some(FILE)).socket, Path::new("/s"), "{line}");
    }
    let cli = Cli::try_parse_from(["finwait", "ls"]).unwrap();
    assert_eq!(cli.socket.path(), Path::new("/run/finwait/finwait.sock"));
}

#[test]
fn flags_that_ss_has() {
    let filter = |line: &str| {
        let Command::Ls(args) = parsed(line) else { panic!("{line}") };
        args.filter.filter().unwrap().to_string()
    };
    assert_eq!(filter("finwait ls -4"), "family ipv4");
    assert_eq!(filter("finwait ls -tnp6 port 80 or port 81"), "family ipv6 and (port 80 or port 81)");
    assert!(refused("finwait ls -4 -6").contains("cannot be used with"));
}

#[test]
fn the_glossary_explains_one_word_or_all() {
    let word = |word: &str| glossary(&[word.to_owned()]);
    assert!(word("FIN-3SEG").unwrap().contains("three segments"));
    assert!(word("fin_3sge").unwrap_err().to_string().contains("did you mean \"fin_3seg\"?"));
    let all = glossary(&[]).unwrap();
    for part in ["Close kinds:", "fin_3seg", "unseen", "midstream", "superseded", "half_close"] {
        assert!(all.contains(part), "{part}");
    }
}

/// The candidates for the last word of a line.
fn candidates(line: &str) -> Vec<String> {
    let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    let last = words.len() - 1;
    let found = clap_complete::engine::complete(&mut Cli::command(), words, last, None).unwrap();
    found.into_iter().map(|candidate| candidate.get_value().to_string_lossy().into_owned()).collect()
}

#[test]
fn completions_know_interfaces_and_words_but_no_hidden_command() {
    assert_eq!(candidates("finwait run -i l"), ["lo"]);
    assert_eq!(candidates("finwait ls stat"), ["state", "state_lost"]);
    assert_eq!(candidates("finwait ls state time-w"), ["time-wait"]);
    let commands = candidates("finwait ");
    assert!(commands.iter().any(|command| command == "watch"), "{commands:?}");
    assert!(!commands.iter().any(|command| ["man", "generate"].contains(&command.as_str())), "{commands:?}");
}
