package batch

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Template is the arguments of a command with replacement strings in them.
type Template struct {
	words  []word
	marked bool // has a replacement string; if not, values are appended
	repeat bool
}

// word is one argument: texts and replacement strings by turns.
type word struct {
	parts []part
	// all: some part stands for all values, so that the word becomes several.
	all bool
}

// part is a text, or one replacement string.
type part struct {
	text string
	kind partKind
	at   int // kindValue: which value, from 1, or from the end if negative; 0: all
	edit string
}

type partKind int

const (
	kindText partKind = iota
	kindSeq
	kindValue
)

// marks finds replacement strings: {#}, {}, {.}, {/}, {//}, {/.} and the same
// with a number, and those that are refused.
var marks = regexp.MustCompile(`\{(#|%|-?\d{0,4}(?:\.|//|/\.|/)?)\}`)

var perlMark = regexp.MustCompile(`\{=.*=\}`)

// ErrSyntax is wrapped by all errors about what a user wrote.
var ErrSyntax = errors.New("bad syntax")

func syntax(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSyntax, fmt.Sprintf(format, args...))
}

// ParseTemplate reads the arguments of a command. With repeat, which is how
// GNU parallel does it under -N, an argument that contains {} or one of its
// variants is repeated whole for each value; without, the values are put there
// by their own, the first and the last joined with what stands before and after.
func ParseTemplate(args []string, repeat bool) (*Template, error) {
	t := &Template{repeat: repeat}
	for _, arg := range args {
		if perlMark.MatchString(arg) {
			return nil, syntax("%q: Perl expressions in {= =} are not available", arg)
		}
		w, err := parseWord(arg)
		if err != nil {
			return nil, err
		}
		for _, p := range w.parts {
			t.marked = t.marked || p.kind != kindText
		}
		t.words = append(t.words, w)
	}
	return t, nil
}

func parseWord(arg string) (w word, err error) {
	last := 0
	text := func(s string) {
		if s != "" {
			w.parts = append(w.parts, part{text: s})
		}
	}
	for _, m := range marks.FindAllStringSubmatchIndex(arg, -1) {
		p, ok, err := parseMark(arg[m[2]:m[3]])
		if err != nil {
			return w, err
		}
		if !ok {
			continue
		}
		text(arg[last:m[0]])
		w.parts = append(w.parts, p)
		w.all = w.all || (p.kind == kindValue && p.at == 0)
		last = m[1]
	}
	text(arg[last:])
	return w, nil
}

// Fixed returns an argument that is the same for every item, and whether arg is
// one.
func Fixed(arg string) (text string, ok bool) {
	w, err := parseWord(arg)
	if err != nil {
		return "", false
	}
	for _, p := range w.parts {
		if p.kind != kindText {
			return "", false
		}
		text += p.text
	}
	return text, true
}

// parseMark reads what stands between braces.
func parseMark(mark string) (p part, ok bool, err error) {
	switch mark {
	case "#":
		return part{kind: kindSeq}, true, nil
	case "%":
		return p, false, syntax("{%%} is the number of a slot of one machine; tasks must not depend on where they run")
	}
	number := strings.TrimRight(mark, "./")
	p = part{kind: kindValue, edit: mark[len(number):]}
	if number == "" {
		return p, true, nil
	}
	p.at, err = strconv.Atoi(number)
	return p, err == nil && p.at != 0, nil // {-} and {0} are texts
}

// Expand returns the arguments of a task: seq is its number, from 1. A value
// that there is not is empty; an argument of nothing but such values is left
// out. Arguments above MaxArgs or MaxArgBytes are an error.
func (t *Template) Expand(seq int, values []string) ([]string, error) {
	e := expansion{seq: seq, values: values, args: make([]string, 0, len(t.words)+len(values))}
	for _, w := range t.words {
		if w.all && t.repeat {
			for i := range values {
				e.add(w, values[i:i+1])
			}
			continue
		}
		e.add(w, values)
	}
	if !t.marked {
		for _, v := range values {
			e.put(v)
		}
	}
	if e.full {
		return nil, syntax("more than %d arguments, or %d KiB of them", MaxArgs, MaxArgBytes>>10)
	}
	return e.args, nil
}

// expansion is the arguments of a task as they are put together.
type expansion struct {
	seq    int
	values []string
	args   []string
	bytes  int
	full   bool // a bound was met: what follows does not count
}

func (e *expansion) put(arg string) {
	if len(e.args) >= MaxArgs || e.bytes+len(arg) > MaxArgBytes {
		e.full = true
		return
	}
	e.bytes += len(arg)
	e.args = append(e.args, arg)
}

// add adds what w becomes; all is what {} stands for.
func (e *expansion) add(w word, all []string) {
	if len(w.parts) == 1 && w.parts[0].kind == kindText {
		e.put(w.parts[0].text) // most often
		return
	}
	var b strings.Builder
	present := len(w.parts) == 0 // there is something in the word, if only an empty value
	for _, p := range w.parts {
		if e.full || b.Len() > MaxArgBytes {
			e.full = true
			return
		}
		switch {
		case p.kind == kindText:
			b.WriteString(p.text)
			present = true
		case p.kind == kindSeq:
			b.WriteString(strconv.Itoa(e.seq))
			present = true
		case p.at != 0:
			if v, ok := pick(e.values, p.at); ok {
				b.WriteString(edit(v, p.edit))
				present = true
			}
		default:
			for i, v := range all {
				if i > 0 {
					e.put(b.String())
					b.Reset()
				}
				b.WriteString(edit(v, p.edit))
				present = true
			}
		}
	}
	if present {
		e.put(b.String())
	}
}

func pick(values []string, at int) (string, bool) {
	if at < 0 {
		at += len(values) + 1
	}
	if at < 1 || at > len(values) {
		return "", false
	}
	return values[at-1], true
}

// edit applies what stands behind the number of a replacement string.
func edit(v, how string) string {
	switch how {
	case ".":
		return withoutExtension(v)
	case "/":
		return baseName(v)
	case "//":
		return dirName(v)
	case "/.":
		return withoutExtension(baseName(v))
	}
	return v
}

func withoutExtension(v string) string {
	if i := strings.LastIndexAny(v, "./"); i >= 0 && v[i] == '.' {
		return v[:i]
	}
	return v
}

func baseName(v string) string { return v[strings.LastIndexByte(v, '/')+1:] }

// dirName is dirname(1).
func dirName(v string) string {
	trimmed := strings.TrimRight(v, "/")
	if trimmed == "" && v != "" {
		return "/"
	}
	v = trimmed
	i := strings.LastIndexByte(v, '/')
	switch dir := strings.TrimRight(v[:i+1], "/"); {
	case dir != "":
		return dir
	case i >= 0:
		return "/"
	}
	return "."
}
