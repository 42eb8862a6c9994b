package jobfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"gotong/tasks/jobs"
)

// MaxBytes bounds a job file.
const MaxBytes = 8 << 20

// ErrSyntax is wrapped by all errors about what a job file says. Their texts
// begin with the line.
var ErrSyntax = errors.New("job file")

// File is a job file as it is written.
type File struct {
	Name      string   `yaml:"name"`
	Keepers   string   `yaml:"keepers"`
	Priority  int      `yaml:"priority"`
	Retention duration `yaml:"retention"`
	Expires   duration `yaml:"expires"`
	Where     located  `yaml:"where"`
	Steps     []Step   `yaml:"steps"`
}

// Step is one step as it is written.
type Step struct {
	line int

	Name      string    `yaml:"name"`
	Runtime   string    `yaml:"runtime"`
	Module    string    `yaml:"module"`
	Args      []string  `yaml:"args"`
	Items     *source   `yaml:"items"`
	Inputs    []string  `yaml:"inputs"`
	Needs     []need    `yaml:"needs"`
	Outputs   bool      `yaml:"outputs"`
	Resources resources `yaml:"resources"`
	Verify    string    `yaml:"verify"`
	Where     located   `yaml:"where"`
	Retries   int       `yaml:"retries"`
	OnFailure string    `yaml:"on_failure"`
	MaxPeers  int       `yaml:"max_peers"`
}

// resources are what a task may use.
type resources struct {
	Memory  size     `yaml:"memory"`
	Time    duration `yaml:"time"`
	Output  size     `yaml:"output"`
	Scratch size     `yaml:"scratch"`
	Files   int      `yaml:"files"`
	Stdout  size     `yaml:"stdout"`
	Stderr  size     `yaml:"stderr"`
}

// source says where items come from: exactly one of List, File, Glob, Range,
// Product and Like.
type source struct {
	line int

	List    []string `yaml:"list"`
	File    string   `yaml:"file"`
	Glob    globs    `yaml:"glob"`
	Range   *span    `yaml:"range"`
	Product []source `yaml:"product"`
	Like    string   `yaml:"like"`
	Linked  bool     `yaml:"linked"`   // in a product: goes with the source before, one with one
	Stage   bool     `yaml:"stage"`    // each item is a file, which is sent
	Columns string   `yaml:"columns"`  // parts each item
	PerTask int      `yaml:"per_task"` // items of one task
}

// span is a range of whole numbers.
type span struct {
	From int64 `yaml:"from"`
	To   int64 `yaml:"to"`
	Step int64 `yaml:"step"`
	Pad  int   `yaml:"pad"` // digits, with zeros before
}

// need is a step whose results another takes in.
type need struct {
	line int

	Step   string `yaml:"step"`
	Gather *bool  `yaml:"gather"`
	Stdin  *bool  `yaml:"stdin"`
	Files  *bool  `yaml:"files"`
}

// located is a text that knows its line.
type located struct {
	text string
	line int
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (l *located) UnmarshalYAML(n *yaml.Node) error {
	l.line = n.Line
	return n.Decode(&l.text)
}

// globs is one pattern, or several.
type globs []string

// UnmarshalYAML implements yaml.Unmarshaler.
func (g *globs) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*g = globs{n.Value}
		return nil
	}
	return n.Decode((*[]string)(g))
}

// duration is written as 90s or 1h30m.
type duration time.Duration

// UnmarshalYAML implements yaml.Unmarshaler.
func (d *duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil || v <= 0 {
		return fmt.Errorf("line %d: %q is no length of time; write it as 90s, 10m or 168h", n.Line, n.Value)
	}
	*d = duration(v)
	return nil
}

// size is written as 200MB or 200MiB.
type size int64

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *size) UnmarshalYAML(n *yaml.Node) error {
	v, err := parseSize(n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	*s = size(v)
	return nil
}

// UnmarshalYAML implements yaml.Unmarshaler: it notes the line.
func (s *Step) UnmarshalYAML(n *yaml.Node) error {
	type plain Step
	s.line = n.Line
	return strict(n, (*plain)(s))
}

// UnmarshalYAML implements yaml.Unmarshaler: a list by itself is a list of
// items.
func (s *source) UnmarshalYAML(n *yaml.Node) error {
	s.line = n.Line
	if n.Kind == yaml.SequenceNode {
		s.List = []string{}
		return n.Decode(&s.List)
	}
	type plain source
	return strict(n, (*plain)(s))
}

// UnmarshalYAML implements yaml.Unmarshaler: a name by itself is a step.
func (d *need) UnmarshalYAML(n *yaml.Node) error {
	d.line = n.Line
	if n.Kind == yaml.ScalarNode {
		d.Step = n.Value
		return nil
	}
	type plain need
	return strict(n, (*plain)(d))
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (r *resources) UnmarshalYAML(n *yaml.Node) error {
	type plain resources
	return strict(n, (*plain)(r))
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (r *span) UnmarshalYAML(n *yaml.Node) error {
	type plain span
	return strict(n, (*plain)(r))
}

// strict decodes a mapping whose keys must all be known. (The decoder's own
// check does not reach below an Unmarshaler.)
func strict(n *yaml.Node, to any) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: keys and values are expected here", n.Line)
	}
	known := keysOf(to)
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := n.Content[i]; !known[key.Value] {
			return fmt.Errorf("line %d: unknown key %q", key.Line, key.Value)
		}
	}
	return n.Decode(to)
}

var (
	unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)
	intoType     = regexp.MustCompile(` into \S*jobfile\.\S+`)
	goType       = regexp.MustCompile(` into (\S+)`)
)

// words says an error of the YAML library in the words of this package.
func words(err error) error {
	text := err.Error()
	var typed *yaml.TypeError
	if errors.As(err, &typed) {
		text = strings.Join(typed.Errors, "; ")
	}
	text = strings.TrimPrefix(text, "yaml: ")
	text = strings.ReplaceAll(text, "unmarshal errors:\n  ", "")
	text = unknownField.ReplaceAllString(text, `unknown key "$1"`)
	text = intoType.ReplaceAllString(text, "")
	text = goType.ReplaceAllString(text, " where $1 is expected")
	text = strings.NewReplacer("cannot unmarshal", "cannot take", "!!str ", "text ", "!!seq", "a list", "!!map", "keys and values", "!!int ", "number ", "!!bool ", "").Replace(text)
	return fmt.Errorf("%w: %s", ErrSyntax, text)
}

func fault(line int, format string, args ...any) error {
	return fmt.Errorf("%w: line %d: %s", ErrSyntax, line, fmt.Sprintf(format, args...))
}

// Parse reads and checks a job file. It touches no other file.
func Parse(data []byte) (*File, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrSyntax, len(data), MaxBytes)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	var f File
	if err := decoder.Decode(&f); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: it is empty", ErrSyntax)
		}
		return nil, words(err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: only one document is expected", ErrSyntax)
	}
	return &f, f.check()
}

// check reports the first fault of what is written.
func (f *File) check() error {
	if len(f.Steps) == 0 {
		return fmt.Errorf("%w: it has no steps", ErrSyntax)
	}
	if f.Keepers != "" && !jobs.Keepers(f.Keepers).Valid() {
		return fmt.Errorf("%w: keepers %q is not any, friends or mine", ErrSyntax, f.Keepers)
	}
	before := map[string]*Step{}
	for i := range f.Steps {
		s := &f.Steps[i]
		if s.Name == "" && len(f.Steps) == 1 {
			s.Name = "main"
		}
		if err := s.check(before); err != nil {
			return err
		}
		before[s.Name] = s
	}
	return nil
}

func (s *Step) check(before map[string]*Step) error {
	switch {
	case s.Name == "":
		return fault(s.line, "a step has no name")
	case before[s.Name] != nil:
		return fault(s.line, "two steps are called %q", s.Name)
	case s.Runtime != "" && s.Runtime != "wasi" && s.Runtime != "native":
		return fault(s.line, "runtime %q is not wasi or native", s.Runtime)
	case s.Runtime == "native" && s.Module != "":
		return fault(s.line, "a native step has no module; its command is the first of args")
	case s.Runtime == "native" && len(s.Args) == 0:
		return fault(s.line, "a native step needs args, the command first")
	case s.Runtime != "native" && s.Module == "":
		return fault(s.line, "step %q has no module", s.Name)
	case s.OnFailure != "" && !jobs.OnFailure(s.OnFailure).Valid():
		return fault(s.line, "on_failure %q is not finish, stop or ignore", s.OnFailure)
	}
	for _, n := range s.Needs {
		if before[n.Step] == nil {
			return fault(n.line, "step %q is not defined before this one", n.Step)
		}
	}
	if s.Items == nil {
		return nil
	}
	if s.Items.Like != "" && before[s.Items.Like] == nil {
		return fault(s.Items.line, "step %q is not defined before this one", s.Items.Like)
	}
	return s.Items.check(true)
}

// check reports what is wrong with a source; outer is false inside a product.
func (s *source) check(outer bool) error {
	kinds := 0
	for _, have := range []bool{s.List != nil, s.File != "", s.Glob != nil, s.Range != nil, s.Product != nil, s.Like != ""} {
		if have {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		return fault(s.line, "items come from one of list, file, glob, range, product and like")
	case !outer && (s.Product != nil || s.Like != "" || s.PerTask != 0 || s.Columns != ""):
		return fault(s.line, "inside a product there are list, file, glob and range only")
	case outer && s.Linked:
		return fault(s.line, "linked is for the sources of a product")
	case s.PerTask < 0:
		return fault(s.line, "per_task %d is not positive", s.PerTask)
	case s.Stage && (s.Columns != "" || s.Range != nil || s.Like != "" || s.Product != nil):
		return fault(s.line, "stage is for items that are files: list, file and glob, without columns")
	case s.Like != "" && (s.Columns != "" || s.PerTask != 0):
		return fault(s.line, "like takes the items of another step as they are")
	}
	if r := s.Range; r != nil {
		if r.Step == 0 {
			r.Step = 1
		}
		if r.Step < 0 != (r.To < r.From) && r.To != r.From || r.Pad < 0 || r.Pad > 20 {
			return fault(s.line, "the range has no numbers")
		}
	}
	for i := range s.Product {
		if err := s.Product[i].check(false); err != nil {
			return err
		}
	}
	return nil
}
