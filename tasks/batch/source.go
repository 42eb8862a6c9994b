package batch

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"slices"
	"strings"
)

// Source gives values in an order: items that are written out, or the lines of
// a file.
type Source struct {
	Linked bool     // its values go with those of the source before, one with one
	Items  []string // the values, if Path is empty
	Path   string   // a file; "-" is standard input
}

// The words that begin a source.
const (
	markItems       = ":::"
	markItemsLinked = ":::+"
	markFiles       = "::::"
	markFilesLinked = "::::+"
)

// StandardInput is the Path of the source that is standard input.
const StandardInput = "-"

// IsMark reports whether a word of a command line begins sources.
func IsMark(word string) bool {
	return word == markItems || word == markItemsLinked || word == markFiles || word == markFilesLinked
}

// SplitArgs parts the words of a command line into those before the first
// source, and the sources.
func SplitArgs(words []string) (command []string, sources []Source, err error) {
	i := slices.IndexFunc(words, IsMark)
	if i < 0 {
		return words, nil, nil
	}
	command = words[:i]
	for i < len(words) {
		mark := words[i]
		end := i + 1
		for end < len(words) && !IsMark(words[end]) {
			end++
		}
		values := words[i+1 : end]
		i = end
		linked := mark == markItemsLinked || mark == markFilesLinked
		switch mark {
		case markItems, markItemsLinked:
			sources = append(sources, Source{Linked: linked, Items: values})
		default:
			if len(values) == 0 {
				return nil, nil, syntax("no file after %s", mark)
			}
			for _, path := range values {
				sources = append(sources, Source{Linked: linked, Path: path})
			}
		}
	}
	if len(sources) > MaxSources {
		return nil, nil, syntax("%d sources of items, at most %d", len(sources), MaxSources)
	}
	stdin := 0
	for _, s := range sources {
		if s.Path == StandardInput {
			stdin++
		}
	}
	if stdin > 1 {
		return nil, nil, syntax("standard input is a source twice")
	}
	return command, sources, nil
}

// Plan says how the values of sources become tasks.
type Plan struct {
	// Sources are combined each with each; the last varies fastest.
	Sources []Source
	// Columns, if set, parts each value into several, without white space at
	// their ends.
	Columns *regexp.Regexp
	// PerTask is how many combinations one task gets; 0 means 1.
	PerTask int
	// NoValues leaves the values out of the tasks: they are only counted.
	NoValues bool
	// Null: values in files end with a NUL byte, not with a newline.
	Null bool
}

// Tasks yields the values of each task, in order. The slice is valid until the
// next one. open opens a file, or standard input under the name StandardInput;
// files other than standard input may be opened several times. An error is the
// last thing that is yielded.
func (p Plan) Tasks(open func(path string) (io.ReadCloser, error)) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		r := &reader{plan: p, open: open}
		if err := r.run(yield); err != nil && !errors.Is(err, errEnough) {
			yield(nil, err)
		}
	}
}

// errEnough says that nobody wants more tasks.
var errEnough = errors.New("enough")

// reader walks through the combinations of a plan.
type reader struct {
	plan   Plan
	open   func(string) (io.ReadCloser, error)
	groups [][]Source
	held   map[string][]string // values of standard input that are needed again
	values []string            // of the task that is being put together
	count  int                 // combinations in it
}

func (r *reader) run(yield func([]string, error) bool) error {
	for _, s := range r.plan.Sources {
		if last := len(r.groups) - 1; s.Linked && last >= 0 {
			r.groups[last] = append(r.groups[last], s)
			continue
		}
		r.groups = append(r.groups, []Source{s})
	}
	if len(r.groups) == 0 {
		return nil
	}
	if err := r.combine(0, nil, yield); err != nil {
		return err
	}
	if r.count > 0 {
		return r.flush(yield)
	}
	return nil
}

// combine adds the values of the groups from depth on to those before.
func (r *reader) combine(depth int, before []string, yield func([]string, error) bool) error {
	if depth == len(r.groups) {
		return r.take(before, yield)
	}
	return r.rows(depth, func(row []string) error {
		return r.combine(depth+1, append(before[:len(before):len(before)], row...), yield)
	})
}

// take adds a combination to the task that is being put together.
func (r *reader) take(values []string, yield func([]string, error) bool) error {
	if !r.plan.NoValues {
		for _, v := range values {
			r.values = r.split(r.values, v)
		}
		if len(r.values) > MaxValues {
			return syntax("a task of more than %d values", MaxValues)
		}
	}
	if r.count++; r.count < max(1, r.plan.PerTask) {
		return nil
	}
	return r.flush(yield)
}

func (r *reader) flush(yield func([]string, error) bool) error {
	more := yield(r.values, nil)
	r.values, r.count = r.values[:0], 0
	if !more {
		return errEnough
	}
	return nil
}

const blanks = " \t\n\v\f\r"

func (r *reader) split(to []string, v string) []string {
	if r.plan.Columns == nil {
		return append(to, v)
	}
	for _, column := range r.plan.Columns.Split(v, -1) {
		to = append(to, strings.Trim(column, blanks))
	}
	return to
}

// rows calls f with the values of each row of a group: the sources of a group
// go side by side, up to the end of the shortest.
func (r *reader) rows(depth int, f func([]string) error) error {
	group := r.groups[depth]
	row := make([]string, len(group))
	nexts := make([]func() (string, error), len(group))
	for i, s := range group {
		next, stop, err := r.pull(s, depth > 0)
		if err != nil {
			return err
		}
		defer stop()
		nexts[i] = next
	}
	for {
		for i, next := range nexts {
			v, err := next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			row[i] = v
		}
		if err := f(row); err != nil {
			return err
		}
	}
}

// pull returns a function that gives the values of a source, then io.EOF.
// Again says that they are needed more than once.
func (r *reader) pull(s Source, again bool) (next func() (string, error), stop func(), err error) {
	if s.Path == "" {
		return eachOf(s.Items), func() {}, nil
	}
	if values, ok := r.held[s.Path]; ok {
		return eachOf(values), func() {}, nil
	}
	f, err := r.open(s.Path)
	if err != nil {
		return nil, nil, err
	}
	lines := r.lines(f, s.Path)
	if again && s.Path == StandardInput {
		defer f.Close()
		values, err := hold(lines)
		if err != nil {
			return nil, nil, err
		}
		r.held = map[string][]string{s.Path: values}
		return eachOf(values), func() {}, nil
	}
	return lines, func() { f.Close() }, nil
}

func eachOf(values []string) func() (string, error) {
	return func() (string, error) {
		if len(values) == 0 {
			return "", io.EOF
		}
		v := values[0]
		values = values[1:]
		return v, nil
	}
}

func hold(next func() (string, error)) ([]string, error) {
	var values []string
	for bytes := 0; ; {
		v, err := next()
		if errors.Is(err, io.EOF) {
			return values, nil
		}
		if bytes += len(v) + 16; err == nil && bytes > MaxHeldBytes {
			err = syntax("more than %d MiB on standard input, which is not the first source; put them into a file", MaxHeldBytes>>20)
		}
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
}

// lines returns a function that reads values from a file.
func (r *reader) lines(f io.Reader, path string) func() (string, error) {
	scanner := bufio.NewScanner(f)
	scanner.Buffer(make([]byte, 0, 16<<10), MaxValueBytes+1)
	end := byte('\n')
	if r.plan.Null {
		end = 0
	}
	scanner.Split(EndingWith(end))
	if path == StandardInput {
		path = "standard input"
	}
	return func() (string, error) {
		if scanner.Scan() {
			return scanner.Text(), nil
		}
		switch err := scanner.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			return "", fmt.Errorf("%s: %w", path, syntax("a line of more than %d KiB", MaxValueBytes>>10))
		case err != nil:
			return "", fmt.Errorf("%s: %w", path, err)
		}
		return "", io.EOF
	}
}

// EndingWith splits what a bufio.Scanner reads into what ends with a byte; the
// last may lack it.
func EndingWith(end byte) bufio.SplitFunc {
	return func(data []byte, atEOF bool) (int, []byte, error) {
		if i := bytes.IndexByte(data, end); i >= 0 {
			return i + 1, data[:i], nil
		}
		if atEOF && len(data) > 0 {
			return len(data), data, nil
		}
		return 0, nil, nil
	}
}
