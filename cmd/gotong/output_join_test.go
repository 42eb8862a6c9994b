package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gotong/tasks/guests"
)

// documents parses all that a command printed with --json.
func documents(t *testing.T, text string) []map[string]any {
	t.Helper()
	var out []map[string]any
	decoder := json.NewDecoder(strings.NewReader(text))
	for {
		var document map[string]any
		err := decoder.Decode(&document)
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		out = append(out, document)
	}
}

// TestJSONEverywhere: every command prints one document with --json, or one a
// line for long work, with the names that scripts rely on; so do errors.
func TestJSONEverywhere(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, friends := grow(ctx, t, g, 1)
	source := shortTempDir(t)
	writeTree(t, source, 8, 3, 10_000)
	for _, test := range []struct {
		args []string
		many bool
		keys string // of the last document
	}{
		{args: []string{"version"}, keys: "version go os arch"},
		{args: []string{"config", "show"}, keys: "home values"},
		{args: []string{"invite"}, keys: "code expires"},
		{args: []string{"peers"}, keys: "peers"},
		{args: []string{"status"}, keys: "sentence peers_alive peers_total backups giving problems"},
		{args: []string{"backup", source}, many: true, keys: "type snapshot files dirs bytes new_bytes stored_bytes segments seconds committed complete survives_sites"},
		{args: []string{"snapshots"}, keys: "snapshots"},
		{args: []string{"stats", "--each"}, keys: "snapshots unique_bytes stored_bytes each"},
		{args: []string{"ls", "latest"}, many: true, keys: "path"},
		{args: []string{"restore", "latest", "--target", filepath.Join(shortTempDir(t), "back")}, many: true, keys: "type files bytes seconds"},
		{args: []string{"run", guest(t, guests.Noop), ":::", "a"}, many: true, keys: "type tasks done failed retried seconds"},
		{args: []string{"remove", "--dry-run", friends[0].Name}, keys: "removed dry_run"},
		{args: []string{"leave"}, keys: "left"},
	} {
		s := gotong(ctx, t, "", append([]string{"--home", you.Home, "--json"}, test.args...)...)
		s.want(t, 0)
		all := documents(t, s.stdout)
		if len(all) == 0 || len(all) > 1 && !test.many || strings.Count(s.stdout, "\n") != len(all) {
			t.Errorf("%v: %d documents in %q", test.args, len(all), s.stdout)
			continue
		}
		for key := range strings.FieldsSeq(test.keys) {
			if _, ok := all[len(all)-1][key]; !ok {
				t.Errorf("%v: no %q in %q", test.args, key, s.stdout)
			}
		}
	}
	for _, args := range [][]string{{"status"}, {"nonsense"}, {"init", "--nonsense"}, {"join", "nonsense"}, {"restore", "x"}, {"remove"}} {
		s := gotong(ctx, t, "", append([]string{"--json", "--home", shortTempDir(t)}, args...)...)
		all := documents(t, s.stderr)
		if len(all) != 1 || all[0]["type"] != "error" || all[0]["code"] != float64(s.code) || s.code == 0 || s.stdout != "" {
			t.Errorf("%v: exit code %d, %q, %q", args, s.code, s.stdout, s.stderr)
		}
	}
}

// TestHelp: every command explains itself with an example, and help is found
// in both usual ways.
func TestHelp(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	root := gotong(ctx, t, "", "--help")
	root.want(t, 0, "Exit codes:", "130 interrupted")
	_, list, _ := strings.Cut(root.stdout, "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	commands := [][]string{{"config", "show"}}
	for line := range strings.Lines(list) {
		commands = append(commands, strings.Fields(line)[:1])
	}
	if len(commands) < 15 {
		t.Errorf("commands %v", commands)
	}
	for _, c := range commands {
		s := gotong(ctx, t, "", append(c[:len(c):len(c)], "--help")...)
		s.want(t, 0, "Examples:", "  gotong "+strings.Join(c, " "))
		if by := gotong(ctx, t, "", append([]string{"help"}, c...)...); by != s {
			t.Errorf("help %v differs from %v --help: %q", c, c, by.stdout+by.stderr)
		}
	}
	gotong(ctx, t, "", "help", "nonsense").want(t, 2, `no command "nonsense"`)
	gotong(ctx, t, "", "peers", "more").want(t, 2, `"more" is one argument too many`, "gotong peers --help")
	gotong(ctx, t, "", "remove").want(t, 2, "an argument is missing: gotong remove PEER")
	gotong(ctx, t, "", "init", "--slots", "many").want(t, 2, `--slots cannot be "many"`)
}

// TestCompletionParses: the shells that are here can read their scripts.
func TestCompletionParses(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	for shell, check := range map[string][]string{"bash": {"-n"}, "zsh": {"-n"}, "fish": {"--no-execute"}, "powershell": nil} {
		s := gotong(ctx, t, "", "completion", shell)
		s.want(t, 0, "gotong")
		program, err := exec.LookPath(shell)
		if err != nil || check == nil {
			continue
		}
		file := filepath.Join(shortTempDir(t), "script")
		if err := os.WriteFile(file, []byte(s.stdout), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(ctx, program, append(check, file)...).CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
			t.Errorf("%s: %v: %s", shell, err, out)
		}
	}
}
