package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// DefaultIgnoreFile is the name of files inside the trees that say what of
// their directory, and what is below it, is not backed up.
const DefaultIgnoreFile = ".gotongignore"

// Bounds of lists of patterns.
const (
	maxPatterns        = 20_000
	maxPatternBytes    = 4096
	maxIgnoreFileBytes = 1 << 20
)

// ErrPattern says that patterns cannot be used.
var ErrPattern = errors.New("patterns cannot be used")

// foldNames: file systems here usually take names that differ in case only for
// the same, and so does git.
const foldNames = runtime.GOOS == "windows" || runtime.GOOS == "darwin"

// rule is one line of gitignore.
type rule struct {
	pattern  string
	negated  bool // takes back what a line before left out
	dirOnly  bool
	nameOnly bool // has no slash: matches the name in any directory
	literal  int  // bytes of the pattern before the first special one
}

// parseRule reads a line. ok is false for comments and empty lines.
func parseRule(line string) (r rule, ok bool) {
	line = strings.TrimSuffix(line, "\r")
	if line == "" || line[0] == '#' || strings.IndexByte(line, 0) >= 0 || len(line) > maxPatternBytes {
		return rule{}, false
	}
	line = trimTrailingSpaces(line)
	if strings.HasPrefix(line, "!") {
		r.negated, line = true, line[1:]
	}
	if strings.HasSuffix(line, "/") {
		r.dirOnly, line = true, line[:len(line)-1]
	}
	if line == "" {
		return rule{}, false
	}
	r.nameOnly = !strings.Contains(line, "/")
	r.pattern = strings.TrimPrefix(line, "/")
	if r.literal = strings.IndexAny(r.pattern, `*?[\`); r.literal < 0 {
		r.literal = len(r.pattern)
	}
	return r, true
}

// trimTrailingSpaces leaves a space that a backslash protects.
func trimTrailingSpaces(line string) string {
	end := 0
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case ' ':
			continue
		case '\\':
			if i++; i == len(line) {
				return line
			}
		}
		end = i + 1
	}
	return line[:end]
}

// matches reports whether the rule speaks of an entry; path is below the
// directory to which the rule belongs.
func (r *rule) matches(path string, dir, fold bool) bool {
	if r.dirOnly && !dir {
		return false
	}
	if r.nameOnly {
		path = path[strings.LastIndexByte(path, '/')+1:]
	}
	if len(path) < r.literal || !equalNames(path[:r.literal], r.pattern[:r.literal], fold) {
		return false
	}
	if r.literal == len(r.pattern) {
		return len(path) == r.literal
	}
	if r.nameOnly {
		return matchWild(r.pattern, path, false, fold)
	}
	// As in git, what comes after the literal part is a pattern of its own: in
	// "a**/b" the stars are at its beginning and match slashes.
	return matchWild(r.pattern[r.literal:], path[r.literal:], true, fold)
}

// equalNames compares strings of one length; folding is that of ASCII.
func equalNames(a, b string, fold bool) bool {
	if !fold {
		return a == b
	}
	for i := range len(a) {
		if lowerASCII(a[i]) != lowerASCII(b[i]) {
			return false
		}
	}
	return true
}

// rules are lines of gitignore; the last one that matches counts.
type rules struct {
	list []rule
	fold bool
}

// parseRules reads lines.
func parseRules(lines []string, fold bool) (rules, error) {
	out := rules{fold: fold}
	for _, line := range lines {
		if r, ok := parseRule(line); ok {
			out.list = append(out.list, r)
		}
	}
	if len(out.list) > maxPatterns {
		return rules{}, fmt.Errorf("%w: %d of them, at most %d", ErrPattern, len(out.list), maxPatterns)
	}
	return out, nil
}

// parseRuleFile reads the text of a file of lines.
func parseRuleFile(text []byte, fold bool) (rules, error) {
	lines, err := splitLines(text)
	if err != nil {
		return rules{}, err
	}
	return parseRules(lines, fold)
}

func splitLines(text []byte) ([]string, error) {
	if len(text) > maxIgnoreFileBytes {
		return nil, fmt.Errorf("%w: more than %d bytes of them", ErrPattern, maxIgnoreFileBytes)
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) // as editors on Windows write it
	return strings.Split(string(text), "\n"), nil
}

// decide says what the rules make of an entry: left out or not, or nothing.
func (r *rules) decide(path string, dir bool) (out, decided bool) {
	for i := len(r.list) - 1; i >= 0; i-- {
		if r.list[i].matches(path, dir, r.fold) {
			return !r.list[i].negated, true
		}
	}
	return false, false
}

// mayDecideBelow reports whether a rule can match something below a directory,
// given with a slash behind.
func (r *rules) mayDecideBelow(dir string) bool {
	for i := range r.list {
		rule := &r.list[i]
		known := rule.pattern[:rule.literal]
		n := min(len(known), len(dir))
		if rule.nameOnly || equalNames(known[:n], dir[:n], r.fold) && (n == len(dir) || rule.literal < len(rule.pattern)) {
			return true
		}
	}
	return false
}

// scope is what the ignore files on the way down to a directory say; nil says
// nothing.
type scope struct {
	above *scope
	base  int // bytes of the directory's path and its slash
	rules rules
}

// filter says what is left out of one backed up path. Entries are named by
// their path below that, with slashes. As in git, options win over ignore
// files, those of inner directories over those of outer ones, and all over
// files of lines for the whole tree.
type filter struct {
	options rules
	files   rules
}

// ignores reports whether an entry is left out.
func (f *filter) ignores(s *scope, path string, dir bool) bool {
	if out, decided := f.options.decide(path, dir); decided {
		return out
	}
	for ; s != nil; s = s.above {
		if out, decided := s.rules.decide(path[s.base:], dir); decided {
			return out
		}
	}
	out, _ := f.files.decide(path, dir)
	return out
}

func (f *filter) empty() bool { return len(f.options.list)+len(f.files.list) == 0 }

// newFilter makes the filter of a backed up path. A line that begins with the
// path itself means what is there: "/home/me/tmp" is "/tmp" below "/home/me".
func newFilter(options, files []string, root string) (filter, error) {
	below := filepath.ToSlash(strings.TrimSuffix(root, string(filepath.Separator))) + "/"
	relative := func(lines []string) []string {
		out := make([]string, len(lines))
		for i, line := range lines {
			mark := ""
			if strings.HasPrefix(line, "!") {
				mark, line = "!", line[1:]
			}
			if rest, ok := strings.CutPrefix(line, below); ok && len(below) > 1 {
				line = "/" + rest
			}
			out[i] = mark + line
		}
		return out
	}
	var f filter
	var err error
	if f.options, err = parseRules(relative(options), foldNames); err == nil {
		f.files, err = parseRules(relative(files), foldNames)
	}
	return f, err
}

// ReadPatterns returns the lines of a file of patterns. Errors: those of the
// file system, ErrPattern.
func ReadPatterns(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxIgnoreFileBytes+1))
	if err != nil {
		return nil, err
	}
	return splitLines(text)
}
