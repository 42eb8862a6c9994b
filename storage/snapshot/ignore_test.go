package snapshot

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// ignoredBy returns which entries of a tree the rules of its ignore files leave
// out, with what is below them, walking as a backup does.
func ignoredBy(t testing.TB, root, ignoreFile string, fold bool) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	var f filter
	var walk func(rel string, s *scope, all bool)
	walk = func(rel string, s *scope, all bool) {
		entries, err := os.ReadDir(filepath.Join(root, rel))
		must(t, err)
		if b, err := os.ReadFile(filepath.Join(root, rel, ignoreFile)); err == nil {
			lines, err := parseRuleFile(b, fold)
			must(t, err)
			s = &scope{above: s, base: len(rel), rules: lines}
		}
		for _, e := range entries {
			path := rel + e.Name()
			left := all || f.ignores(s, path, e.IsDir())
			out[path] = left
			if e.IsDir() && e.Name() != ".git" {
				walk(path+"/", s, left)
			}
		}
	}
	walk("", nil, false)
	return out
}

// ignoredByGit asks git the same.
func ignoredByGit(t testing.TB, root string, paths []string, fold bool) map[string]bool {
	t.Helper()
	ignorecase := "core.ignorecase=false"
	if fold {
		ignorecase = "core.ignorecase=true"
	}
	cmd := exec.Command("git", "-c", ignorecase, "-c", "core.excludesFile=/dev/null", "check-ignore", "-z", "--stdin", "--no-index")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	cmd.Stdin = strings.NewReader(strings.Join(paths, "\x00") + "\x00")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil && cmd.ProcessState.ExitCode() != 1 { // 1: none is ignored
		t.Fatalf("git: %v: %s", err, stderr.String())
	}
	out := map[string]bool{}
	for path := range strings.SplitSeq(string(b), "\x00") {
		out[path] = true
	}
	return out
}

func newRepository(t testing.TB) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git here to compare with")
	}
	root := t.TempDir()
	if out, err := exec.Command("git", "init", "-q", root).CombinedOutput(); err != nil {
		t.Skipf("git init: %v: %s", err, out)
	}
	must(t, os.RemoveAll(filepath.Join(root, ".git", "info")))
	return root
}

func compareWithGit(t testing.TB, root string, fold bool, describe string) {
	t.Helper()
	mine := ignoredBy(t, root, ".gitignore", fold)
	var paths []string
	for path := range mine {
		if !strings.HasPrefix(path, ".git/") && path != ".git" {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	git := ignoredByGit(t, root, paths, fold)
	for _, path := range paths {
		if mine[path] != git[path] {
			t.Errorf("%q: left out %v, git says %v; %s", path, mine[path], git[path], describe)
		}
	}
}

// TestIgnoreLinesAreThoseOfGit compares single lines over one tree with git.
func TestIgnoreLinesAreThoseOfGit(t *testing.T) {
	root := newRepository(t)
	for _, path := range []string{"a", "b.o", "B.O", "foo/a", "foo/bar/a", "foo/bar/b.o", "x/foo/bar/c", "x/y/z/a", "foobar/q", "dir/foo/a",
		"spaced ", "tail", "#hash", "!bang", `back\slash`, "[set]", "a-z", "a]b", "é", "tab\tname", "-", "^", "x/foo/y/foo/z", "logs/a.log", "logs/keep.log"} {
		write(t, filepath.Join(root, path), nil)
	}
	must(t, os.Symlink("foo", filepath.Join(root, "linkdir")))
	for _, lines := range []string{
		"a", "/a", "a/", "foo", "foo/", "/foo", "/foo/", "foo/bar", "/foo/bar/", "foo/*", "foo/**", "foo/**/", "**/foo", "**/foo/", "**/foo/bar", "foo/**/a",
		"**", "*", "/*", "/**", "**/", "*/", "/*/", "x/**/foo", "x/**/**/foo", "**/**/a", "a**", "**a", "x/**a", "x/*/z", "x/*", "x/*/*",
		"*.o", "*.O", "B.O", "[bB].o", "[a-b].o", "[!a].o", "[^a].o", "[]a]", "[!]a]", "a[]]b", "[[:alpha:]]", "[[:upper:]].O", "[[:lower:]].o", "[[:nope:]]", "[[:alpha:]", "[a-", "[a-]", "[-a]",
		"[\\]a]b", `\[set\]`, "[[]set]", `back\\slash`, `back\slash`, `\a`, `\`, `a\`, "?", "??", "foo?bar", "foo?bar/",
		"spaced ", `spaced\ `, "spaced   ", "tail   ", "tail\r", "#hash", `\#hash`, "!bang", `\!bang`, "!", "/", "//", "!/", "# only", "", " ", "\ufeffa",
		"*.log\n!keep.log", "logs/\n!logs/keep.log", "logs/*\n!logs/keep.log", "/*\n!/foo\n/foo/*\n!/foo/bar", "*\n!*/\n!*.o", "!a\na", "a\n!a",
		"linkdir", "linkdir/", "é", "?é", "tab\tname", "x/foo/", "foo//bar", "foo/./bar", "./a", "../a", "x/**/foo/z", "x**/foo", "x/**foo", "foo/[a-z]ar", "foo[/]bar", "foo/bar/..", "*/foo", "*/foo/*",
	} {
		must(t, os.WriteFile(filepath.Join(root, ".gitignore"), []byte(lines+"\n"), 0o644))
		for _, fold := range []bool{false, true} {
			compareWithGit(t, root, fold, lines)
		}
	}
}

// TestRandomIgnoreFilesAreThoseOfGit compares random lines in several ignore
// files of one tree.
func TestRandomIgnoreFilesAreThoseOfGit(t *testing.T) {
	root := newRepository(t)
	names := []string{"c", "d", "ad", "Ad", "a.b", "c[d]", "d*", "d "}
	dirs := []string{""}
	for _, x := range []string{"a/", "b/", "ab/"} {
		dirs = append(dirs, x+"dir/", x+"a/dir/")
	}
	for _, dir := range dirs {
		for _, name := range names {
			write(t, filepath.Join(root, dir+name), nil)
		}
	}
	pieces := []string{"a", "b", "A", "c", "d", "*", "**", "?", "/", "/", ".", "!", "[ab]", "[!a]", "[a-c", "]", `\`, "[[:upper:]]", "dir", " ", "**/", "/**"}
	line := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 1, 6).Draw(t, "line"), "")
	})
	rapid.Check(t, func(rt *rapid.T) {
		var all []string
		for _, dir := range dirs {
			path := filepath.Join(root, dir, ".gitignore")
			_ = os.Remove(path)
			if rapid.IntRange(0, 3).Draw(rt, "here") == 0 || dir == "" {
				lines := rapid.SliceOfN(line, 1, 4).Draw(rt, "lines")
				must(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644))
				all = append(all, dir+": "+strings.Join(lines, " | "))
			}
		}
		compareWithGit(t, root, rapid.Bool().Draw(rt, "fold"), strings.Join(all, "; "))
		if t.Failed() {
			rt.FailNow()
		}
	})
}

// TestStallingPatternEnds: a pattern made to take forever does not.
func TestStallingPatternEnds(t *testing.T) {
	matchWild(strings.Repeat("**/*a*/", 60)+"b", strings.Repeat("a/aa/", 400), true, false)
	matchWild(strings.Repeat("*a", 60)+"b", strings.Repeat("a", 250), false, false)
}

func FuzzWildmatch(f *testing.F) {
	f.Add("**/[!a-z]*", "x/Yz", true, true)
	f.Add(`[[:alpha:]\]]`, "]", false, false)
	f.Fuzz(func(t *testing.T, pattern, text string, paths, fold bool) {
		matchWild(pattern, text, paths, fold)
		if r, ok := parseRule(pattern); ok && text != "" {
			r.matches(text, paths, fold)
		}
	})
}

// TestNothingIsPassedOver: where a rule matches, mayDecideBelow let the walk in.
func TestNothingIsPassedOver(t *testing.T) {
	pieces := []string{"a", "b", "*", "**", "?", "/", "/", "[ab]", `\a`, "**/", "/**"}
	rapid.Check(t, func(t *rapid.T) {
		line := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 1, 6).Draw(t, "line"), "")
		path := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab", "A"}), 2, 5).Draw(t, "path"), "/")
		lines, err := parseRules([]string{line}, rapid.Bool().Draw(t, "fold"))
		if err != nil {
			t.Fatal(err)
		}
		if found, _ := lines.decide(path, true); !found {
			return
		}
		for i := range path {
			if path[i] == '/' && !lines.mayDecideBelow(path[:i+1]) {
				t.Fatalf("%q matches %q, and %q is passed over", line, path, path[:i+1])
			}
		}
	})
}
