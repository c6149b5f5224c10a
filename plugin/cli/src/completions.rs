//! Scripts by which a shell completes methods, their parameters, and the values that are listed.

use outrigger_rpc_schema::{MethodInfo, Parameter, ParameterType, first_sentence, methods, rendezvous};

/// The shells that there are scripts for.
pub(crate) const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// The options, each with what it does.
const OPTIONS: [(&str, &str); 8] = [
    ("--json", "print the result as one line of JSON"),
    ("--data-dir", "the daemon's data directory"),
    ("--network", "the daemon's network"),
    ("--url", "a daemon elsewhere: https://HOST:PORT"),
    ("--token-file", "the token for --url"),
    ("--ca", "whom to trust with --url"),
    ("--help", "describe the program or a method"),
    ("--version", "print the version"),
];

/// Words that stand where a method does.
const WORDS: [(&str, &str); 3] = [
    ("help", "describe the program or a method"),
    ("completions", "print a script for a shell"),
    ("man", "print the manual page"),
];

/// The script for a shell, if it is one of [`SHELLS`].
pub(crate) fn script(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

/// The values that a parameter may have, where they are listed.
fn values(parameter: &Parameter) -> Vec<String> {
    match &parameter.kind {
        ParameterType::Boolean => vec!["true".to_owned(), "false".to_owned()],
        ParameterType::Choice(choices) => choices.clone(),
        ParameterType::List(element) => match element.as_ref() {
            ParameterType::Choice(choices) => choices.clone(),
            _ => Vec::new(),
        },
        ParameterType::Integer { .. } | ParameterType::Text | ParameterType::Object(_) => Vec::new(),
    }
}

/// `name=` for each parameter.
fn parameters(method: &MethodInfo) -> impl Iterator<Item = (String, &Parameter)> {
    method.parameters.iter().map(|parameter| (format!("{}=", parameter.name), parameter))
}

fn joined<T: AsRef<str>>(words: impl Iterator<Item = T>) -> String {
    words.map(|word| word.as_ref().to_owned()).collect::<Vec<_>>().join(" ")
}

/// One `case` of values: `METHOD NAME=) list="…" ;;` for each parameter whose values are listed.
fn value_cases(margin: &str) -> String {
    let mut cases = String::new();
    for method in methods() {
        for (name, parameter) in parameters(method) {
            let values = values(parameter);
            if !values.is_empty() {
                cases.push_str(&format!("{margin}'{} {name}') list='{}' ;;\n", method.name, values.join(" ")));
            }
        }
    }
    cases
}

fn bash() -> String {
    let mut names = String::new();
    for method in methods().iter().filter(|method| !method.parameters.is_empty()) {
        let parameters = joined(parameters(method).map(|(name, _)| name));
        names.push_str(&format!("        {}) list='{parameters}' ;;\n", method.name));
    }
    let begins = joined(methods().iter().map(|method| method.name).chain(WORDS.map(|(word, _)| word)));
    let options = joined(OPTIONS.iter().map(|(option, _)| option));
    BASH.replace("@BEGINS@", &begins)
        .replace("@METHODS@", &joined(methods().iter().map(|method| method.name)))
        .replace("@OPTIONS@", &options)
        .replace("@SHELLS@", &SHELLS.join(" "))
        .replace("@NETWORKS@", &rendezvous::NETWORKS.join(" "))
        .replace("@PARAMETERS@\n", &names)
        .replace("@VALUES@\n", &value_cases("        "))
}

/// bash breaks words at `=`, so the words are taken from the line, and what stands before the break is cut off the answers.
const BASH: &str = r#"# bash completion of outrigger-cli: source <(outrigger-cli completions bash)
_outrigger_cli() {
    local line=${COMP_LINE:0:COMP_POINT} word= method= given= list= last= head= i
    local -a words
    read -ra words <<<"$line"
    case $line in
    *[[:space:]]) ;;
    *) word=${words[${#words[@]} - 1]}; unset "words[${#words[@]} - 1]" ;;
    esac
    for ((i = 1; i < ${#words[@]}; i++)); do
        case ${words[i]} in
        --data-dir | --network | --url | --token-file | --ca) i=$((i + 1)) ;;
        -*) ;;
        *=*) given+=" ${words[i]%%=*}= " ;;
        *) if [[ -z $method ]]; then method=${words[i]}; fi ;;
        esac
    done
    last=${words[${#words[@]} - 1]}
    COMPREPLY=()
    case $last:$word in
    --data-dir:*) compopt -o filenames 2>/dev/null; while IFS= read -r i; do COMPREPLY+=("$i"); done < <(compgen -d -- "$word"); return ;;
    --token-file:* | --ca:*) compopt -o filenames 2>/dev/null; while IFS= read -r i; do COMPREPLY+=("$i"); done < <(compgen -f -- "$word"); return ;;
    --url:*) return ;;
    --network:*) list='@NETWORKS@' ;;
    *:-*) list='@OPTIONS@' ;;
    *:*=*)
        case "$method ${word%%=*}=" in
@VALUES@
        esac
        # A list goes on behind its last comma.
        head=${word#*=} head=${head%"${head##*,}"}
        if [[ $COMP_WORDBREAKS != *=* ]]; then head=${word%%=*}=$head; else word=${word#*=}; fi
        list=$(for i in $list; do printf '%s ' "$head$i"; done)
        ;;
    *)
        case $method in
        '') list='@BEGINS@' ;;
        help) list='@METHODS@' ;;
        completions) list='@SHELLS@' ;;
@PARAMETERS@
        esac
        list=" $list "
        for i in $given; do list=${list/ $i / }; done
        ;;
    esac
    while IFS= read -r i; do COMPREPLY+=("$i"); done < <(compgen -W "$list" -- "$word")
    if [[ ${COMPREPLY[0]-} == *= ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -F _outrigger_cli outrigger-cli
"#;

/// A word as zsh's `_describe` takes it, in quotes.
fn described(name: &str, text: &str) -> String {
    format!("'{name}:{}'", text.replace('\'', r"'\''"))
}

fn zsh() -> String {
    let mut cases = String::new();
    for method in methods().iter().filter(|method| !method.parameters.is_empty()) {
        let entry = |(name, parameter): (String, &Parameter)| described(&name, first_sentence(&parameter.description));
        cases.push_str(&format!("        {}) list=({}) ;;\n", method.name, joined(parameters(method).map(entry))));
    }
    let described_methods = || methods().iter().map(|method| described(method.name, first_sentence(&method.summary)));
    let begins = joined(described_methods().chain(WORDS.map(|(word, text)| described(word, text))));
    ZSH.replace("@BEGINS@", &begins)
        .replace("@METHODS@", &joined(described_methods()))
        .replace("@OPTIONS@", &joined(OPTIONS.iter().map(|(option, text)| described(option, text))))
        .replace("@SHELLS@", &SHELLS.join(" "))
        .replace("@NETWORKS@", &rendezvous::NETWORKS.join(" "))
        .replace("@PARAMETERS@\n", &cases)
        .replace("@VALUES@\n", &value_cases("        "))
}

const ZSH: &str = r#"#compdef outrigger-cli
# zsh completion of outrigger-cli: source <(outrigger-cli completions zsh), or as the file _outrigger-cli in the fpath
_outrigger-cli() {
    local method= name i
    local -a list given
    for ((i = 2; i < CURRENT; i++)); do
        case $words[i] in
        --data-dir | --network | --url | --token-file | --ca) i=$((i + 1)) ;;
        -*) ;;
        *=*) given+=(${words[i]%%=*}=) ;;
        *) [[ -n $method ]] || method=$words[i] ;;
        esac
    done
    case ${words[CURRENT-1]} in
    --data-dir) _directories; return ;;
    --token-file | --ca) _files; return ;;
    --url) return ;;
    --network) compadd -- @NETWORKS@; return ;;
    esac
    if [[ $PREFIX == -* ]]; then
        list=(@OPTIONS@)
        _describe option list
    elif [[ $PREFIX == *=* ]]; then
        name=${PREFIX%%=*}=
        case "$method $name" in
@VALUES@
        esac
        compset -P '*='
        compset -P '*,'
        compadd -- ${=list}
    else
        case $method in
        '') list=(@BEGINS@); _describe method list; return ;;
        help) list=(@METHODS@); _describe method list; return ;;
        completions) compadd -- @SHELLS@; return ;;
@PARAMETERS@
        esac
        for name in $given; do list=(${list:#$name:*}); done
        _describe parameter list -S ''
    fi
}
if [[ $funcstack[1] == _outrigger-cli ]]; then _outrigger-cli "$@"; else compdef _outrigger-cli outrigger-cli; fi
"#;

/// A text in fish's quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

fn fish() -> String {
    let mut script = FISH.to_owned();
    let mut add = |condition: &str, words: &str, text: &str| {
        let (condition, words, text) = (quoted(condition), quoted(words), quoted(text));
        script.push_str(&format!("complete -c outrigger-cli -n {condition} -a {words} -d {text}\n"));
    };
    for method in methods() {
        add("__outrigger_cli_is ''", method.name, first_sentence(&method.summary));
        add("__outrigger_cli_is help", method.name, first_sentence(&method.summary));
        for (name, parameter) in parameters(method) {
            let condition = format!("__outrigger_cli_is {}; and __outrigger_cli_lacks {name}", method.name);
            add(&condition, &name, first_sentence(&parameter.description));
            for value in values(parameter) {
                add(&condition, &format!("{name}{value}"), "");
            }
        }
    }
    WORDS.iter().for_each(|(word, text)| add("__outrigger_cli_is ''", word, text));
    SHELLS.iter().for_each(|shell| add("__outrigger_cli_is completions", shell, ""));
    for (option, text) in OPTIONS {
        let more = match option {
            "--data-dir" => " -x -a '(__fish_complete_directories)'".to_owned(),
            "--token-file" | "--ca" => " -r -F".to_owned(),
            "--url" => " -x".to_owned(),
            "--network" => format!(" -x -a {}", quoted(&rendezvous::NETWORKS.join(" "))),
            _ => String::new(),
        };
        let option = option.trim_start_matches('-');
        script.push_str(&format!("complete -c outrigger-cli -l {option}{more} -d {}\n", quoted(text)));
    }
    script
}

const FISH: &str = r#"# fish completion of outrigger-cli: outrigger-cli completions fish | source
function __outrigger_cli_is -a wanted -d 'whether this is the method of the command line'
    set -l skip 0
    for word in (commandline -opc)[2..]
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
            case --data-dir --network --url --token-file --ca
                set skip 1
            case '-*' '*=*'
            case '*'
                test $word = "$wanted"
                return
        end
    end
    test -z "$wanted"
end
function __outrigger_cli_lacks -a name -d 'whether a parameter is not given yet'
    not string match -q -- "$name*" (commandline -opc)
end
complete -c outrigger-cli -f
"#;
