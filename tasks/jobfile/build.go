package jobfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"gotong/grid/blake3"
	"gotong/tasks"
	"gotong/tasks/batch"
	"gotong/tasks/jobs"
	"gotong/tasks/where"
)

// Draft is a plan of which only the submitter's part is missing: ids, owner,
// key, grant and times.
type Draft struct {
	Plan    jobs.Plan
	Expires time.Duration // from now; 0: the standard
	// Files says where the contents of the plan are. Those that Build wrote lie
	// in the directory that it was given.
	Files map[tasks.ContentID]string
	Sizes map[tasks.ContentID]int64
}

func parseSize(s string) (int64, error) {
	n, err := humanize.ParseBytes(s)
	if err != nil || n == 0 || n > 1<<62 {
		return 0, fmt.Errorf("%q is no size; write it as 200MB or 200MiB", s)
	}
	return int64(n), nil
}

// keysOf returns the keys of a struct.
func keysOf(to any) map[string]bool {
	t := reflect.TypeOf(to).Elem()
	out := map[string]bool{}
	for i := range t.NumField() {
		if tag := t.Field(i).Tag.Get("yaml"); tag != "" {
			out[tag] = true
		}
	}
	return out
}

// Build finds the files of which f speaks, relative to dir, and makes a plan.
// Lists of items that are large go into a file in temp.
func (f *File) Build(dir, temp string) (*Draft, error) {
	b := &builder{dir: dir, temp: temp, draft: &Draft{
		Plan: jobs.Plan{
			Name: f.Name, Keepers: jobs.Keepers(f.Keepers), Priority: f.Priority, Retention: time.Duration(f.Retention),
		},
		Expires: time.Duration(f.Expires), Files: map[tasks.ContentID]string{}, Sizes: map[tasks.ContentID]int64{},
	}, hashed: map[string]tasks.Input{}}
	if b.draft.Plan.Keepers == "" {
		b.draft.Plan.Keepers = jobs.KeepersAny
	}
	for i := range f.Steps {
		step, err := b.step(f, &f.Steps[i])
		if err != nil {
			return nil, err
		}
		b.draft.Plan.Steps = append(b.draft.Plan.Steps, step)
	}
	return b.draft, nil
}

type builder struct {
	dir, temp string
	draft     *Draft
	hashed    map[string]tasks.Input // by path
}

func (b *builder) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(b.dir, name)
}

// file hashes a file that is to be sent.
func (b *builder) file(line int, path string) (tasks.Input, error) {
	if in, ok := b.hashed[path]; ok {
		return in, nil
	}
	in, err := b.hash(path)
	if err != nil {
		return in, fault(line, "%v", err)
	}
	b.hashed[path] = in
	b.draft.Files[in.Content], b.draft.Sizes[in.Content] = path, in.Size
	return in, nil
}

func (b *builder) hash(path string) (in tasks.Input, err error) {
	f, err := os.Open(path)
	if err != nil {
		return in, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return in, err
	}
	if !info.Mode().IsRegular() {
		return in, fmt.Errorf("%s is not a regular file", path)
	}
	hash := blake3.New()
	if in.Size, err = io.Copy(hash, f); err != nil {
		return in, err
	}
	hash.Sum(in.Content[:0])
	return in, nil
}

func (b *builder) step(f *File, s *Step) (jobs.Step, error) {
	out := jobs.Step{
		Name: s.Name, Runtime: tasks.Runtime(s.Runtime), Args: s.Args, Limits: s.limits(), Verify: s.Verify,
		Where: f.Where.text, Outputs: s.Outputs, Retries: s.Retries, MaxPeers: s.MaxPeers, OnFailure: jobs.OnFailure(s.OnFailure),
	}
	if out.Runtime == "" {
		out.Runtime = tasks.RuntimeWASI
	}
	if out.OnFailure == "" {
		out.OnFailure = jobs.FailureFinish
	}
	at := f.Where
	if s.Where.text != "" {
		out.Where, at = s.Where.text, s.Where
	}
	if _, err := where.Parse(out.Where); err != nil {
		return out, fault(at.line, "where: %v", err)
	}
	verify, err := tasks.ParseVerify(s.Verify)
	if err != nil {
		return out, fault(s.line, "step %q: %v", s.Name, err)
	}
	out.Verify = verify.String()
	if err := out.Limits.Validate(); err != nil {
		return out, fault(s.line, "step %q: resources: %v", s.Name, err)
	}
	if _, err := batch.ParseTemplate(s.Args, false); err != nil {
		return out, fault(s.line, "step %q: args: %v", s.Name, err)
	}
	if s.Module != "" {
		in, err := b.file(s.line, b.path(s.Module))
		if err != nil {
			return out, err
		}
		if module, err := IsModule(b.path(s.Module)); err != nil {
			return out, err
		} else if !module {
			return out, fault(s.line, "%s is no WASM module; an ordinary program needs runtime: native, and donors who allow it", s.Module)
		}
		if in.Size > tasks.MaxModuleBytes {
			return out, fault(s.line, "module %s has %d bytes, at most %d", s.Module, in.Size, int64(tasks.MaxModuleBytes))
		}
		out.Module = in.Content
	}
	if out.Common, err = b.inputs(s); err != nil {
		return out, err
	}
	if out.Items, err = b.items(s); err != nil {
		return out, err
	}
	out.Needs, err = b.needs(s, out.Items)
	return out, err
}

func (s *Step) limits() tasks.Limits {
	l := tasks.DefaultLimits()
	r := s.Resources
	set := func(to *int64, v size) {
		if v != 0 {
			*to = int64(v)
		}
	}
	set(&l.MemoryBytes, r.Memory)
	set(&l.OutputBytes, r.Output)
	set(&l.StdoutBytes, r.Stdout)
	set(&l.StderrBytes, r.Stderr)
	if r.Scratch != 0 { // tasks write below /out only
		l.OutputBytes += int64(r.Scratch)
	}
	if r.Time != 0 {
		l.Wall = time.Duration(r.Time)
	}
	if r.Files != 0 {
		l.OutputFiles = r.Files
	}
	return l
}

// inputs are the files that every task of a step sees.
func (b *builder) inputs(s *Step) (out []tasks.Input, err error) {
	taken := map[string]string{}
	for _, pattern := range s.Inputs {
		paths, err := b.glob(s.line, pattern)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			in, err := b.file(s.line, b.path(path))
			if err != nil {
				return nil, err
			}
			in.Name = filepath.Base(path)
			if other, ok := taken[in.Name]; ok {
				return nil, fault(s.line, "inputs %s and %s would both be /in/%s", other, path, in.Name)
			}
			taken[in.Name] = path
			out = append(out, in)
		}
	}
	if len(out) > tasks.MaxInputs {
		return nil, fault(s.line, "%d inputs, at most %d", len(out), tasks.MaxInputs)
	}
	return out, nil
}

// glob returns the files that match, sorted. A pattern without wildcards names
// a file.
func (b *builder) glob(line int, pattern string) ([]string, error) {
	if !strings.ContainsAny(pattern, `*?[`) {
		return []string{pattern}, nil
	}
	found, err := filepath.Glob(b.path(pattern))
	if err != nil {
		return nil, fault(line, "pattern %q: %v", pattern, err)
	}
	var out []string
	for _, path := range found {
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if !filepath.IsAbs(pattern) {
			if path, err = filepath.Rel(b.dir, path); err != nil {
				return nil, fault(line, "%v", err)
			}
		}
		out = append(out, path)
	}
	if len(out) == 0 {
		return nil, fault(line, "no file matches %q", pattern)
	}
	return out, nil
}

// needs says what a step takes of those before it.
func (b *builder) needs(s *Step, items jobs.Items) (out []jobs.Need, err error) {
	steps := b.draft.Plan.Steps
	stdin := false
	for _, n := range s.Needs {
		i := slices.IndexFunc(steps, func(o jobs.Step) bool { return o.Name == n.Step })
		from := steps[i]
		need := jobs.Need{Step: i, Gather: s.Items == nil, Files: from.Outputs, Stdin: !from.Outputs && !stdin}
		set := func(to *bool, v *bool) {
			if v != nil {
				*to = *v
			}
		}
		set(&need.Gather, n.Gather)
		set(&need.Files, n.Files)
		set(&need.Stdin, n.Stdin)
		switch {
		case need.Files && !from.Outputs:
			return nil, fault(n.line, "step %q keeps no files; give it outputs: true", n.Step)
		case need.Stdin && stdin:
			return nil, fault(n.line, "standard input can come from one step only")
		case !need.Gather && from.Items.Count != items.Count:
			return nil, fault(n.line, "step %q has %d items and this one %d; give it gather: true, or items: {like: %s}", n.Step, from.Items.Count, items.Count, n.Step)
		}
		stdin = stdin || need.Stdin
		out = append(out, need)
	}
	return out, nil
}

// items writes the list of items of a step.
func (b *builder) items(s *Step) (jobs.Items, error) {
	if s.Items == nil {
		return jobs.Items{Count: 1}, nil
	}
	if s.Items.Like != "" {
		i := slices.IndexFunc(b.draft.Plan.Steps, func(o jobs.Step) bool { return o.Name == s.Items.Like })
		return b.draft.Plan.Steps[i].Items, nil
	}
	path := filepath.Join(b.temp, "items-"+strconv.Itoa(len(b.draft.Plan.Steps)))
	items, err := jobs.WriteItems(path, func(add func(jobs.Item) error) error { return b.list(s.Items, add) })
	if err != nil {
		return items, err
	}
	if items.Count == 0 {
		return items, fault(s.Items.line, "there are no items")
	}
	if items.Data == nil {
		b.draft.Files[items.Content], b.draft.Sizes[items.Content] = path, items.Size
	}
	return items, nil
}

// list adds the items of a source.
func (b *builder) list(s *source, add func(jobs.Item) error) error {
	plan, stage, err := b.plan(s)
	if err != nil {
		return err
	}
	for values, err := range plan.Tasks(open) {
		if err != nil {
			return fault(s.line, "items: %v", err)
		}
		item := jobs.Item{Words: slices.Clone(values)}
		for i := range item.Words {
			if stage[i%len(stage)] {
				if err := b.stage(s.line, &item, i); err != nil {
					return err
				}
			}
		}
		if err := add(item); err != nil {
			return fault(s.line, "items: %v", err)
		}
	}
	return nil
}

// stage has the file that a word names sent with its task.
func (b *builder) stage(line int, item *jobs.Item, word int) error {
	path := item.Words[word]
	in, data, err := b.staged(line, item, b.path(path))
	if err != nil {
		return err
	}
	in.Name = StagedName(path)
	if !tasks.ValidName(in.Name) {
		return fault(line, "a staged file cannot be called %q", in.Name)
	}
	for _, other := range item.Inputs {
		if other.Name == in.Name {
			in.Name = ""
		}
	}
	if in.Name != "" {
		item.Inputs = append(item.Inputs, in)
		if data != nil {
			item.Inline = append(item.Inline, data)
		}
	}
	item.Words[word] = "/in/" + StagedName(path)
	return nil
}

// staged takes in a file of one item: its bytes when it is small and they fit
// into the list, else it is sent by itself.
func (b *builder) staged(line int, item *jobs.Item, path string) (in tasks.Input, data []byte, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return in, nil, fault(line, "%v", err)
	}
	room := jobs.MaxInlineItem
	for _, have := range item.Inline {
		room -= len(have)
	}
	if !info.Mode().IsRegular() || info.Size() == 0 || info.Size() > int64(min(room, jobs.MaxInlineFile)) {
		in, err = b.file(line, path)
		return in, nil, err
	}
	if data, err = os.ReadFile(path); err != nil {
		return in, nil, fault(line, "%v", err)
	}
	if len(data) == 0 || len(data) > room { // it changed just now
		in, err = b.file(line, path)
		return in, nil, err
	}
	return tasks.Input{Content: blake3.Sum256(data), Size: int64(len(data))}, data, nil
}

// StagedName is the name below /in of a file that an item names: its path,
// without what leads out of a directory.
func StagedName(path string) string {
	name := filepath.ToSlash(filepath.Clean("/" + filepath.ToSlash(path)))
	return strings.TrimPrefix(strings.ReplaceAll(name, ":", "_"), "/")
}

// plan makes the sources of package batch; stage says which of them are files.
func (b *builder) plan(s *source) (plan batch.Plan, stage []bool, err error) {
	parts := []source{*s}
	if s.Product != nil {
		parts = s.Product
	}
	plan.PerTask = s.PerTask
	if s.Columns != "" {
		if plan.Columns, err = regexp.Compile(s.Columns); err != nil {
			return plan, nil, fault(s.line, "columns: %v", err)
		}
	}
	for _, p := range parts {
		from := batch.Source{Linked: p.Linked, Items: p.List}
		switch {
		case p.File != "":
			from.Path = b.path(p.File)
		case p.Range != nil:
			from.Path = rangePrefix + p.Range.text()
		case p.Glob != nil:
			for _, pattern := range p.Glob {
				paths, err := b.glob(p.line, pattern)
				if err != nil {
					return plan, nil, err
				}
				from.Items = append(from.Items, paths...)
			}
		}
		plan.Sources = append(plan.Sources, from)
		stage = append(stage, p.Stage)
	}
	return plan, stage, nil
}

// rangePrefix marks the path of a source that is a range: no file can be called
// so.
const rangePrefix = "\x00range "

func (r *span) text() string { return fmt.Sprintf("%d %d %d %d", r.From, r.To, r.Step, r.Pad) }

// open opens what a source names.
func open(path string) (io.ReadCloser, error) {
	text, ok := strings.CutPrefix(path, rangePrefix)
	if !ok {
		return os.Open(path)
	}
	r := &rangeReader{}
	if _, err := fmt.Sscan(text, &r.at, &r.to, &r.step, &r.pad); err != nil {
		return nil, err
	}
	return io.NopCloser(r), nil
}

// rangeReader gives numbers, one a line.
type rangeReader struct {
	at, to, step int64
	pad          int
	rest         []byte
	over         bool
}

func (r *rangeReader) Read(p []byte) (int, error) {
	for len(r.rest) < len(p) && !r.over {
		r.rest = r.number(r.rest)
	}
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = append(r.rest[:0], r.rest[n:]...)
	return n, nil
}

// number appends the next one.
func (r *rangeReader) number(to []byte) []byte {
	if r.step > 0 && r.at > r.to || r.step < 0 && r.at < r.to {
		r.over = true
		return to
	}
	text := strconv.FormatInt(r.at, 10)
	for n := len(text); n < r.pad; n++ {
		to = append(to, '0')
	}
	to = append(append(to, text...), '\n')
	next := r.at + r.step
	r.over = (next > r.at) != (r.step > 0) // beyond what a number holds
	r.at = next
	return to
}

// IsModule reports whether a file begins like a WASM module. Whoever sends one
// asks first, because of other files every worker would say so.
func IsModule(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	const magic = "\x00asm"
	var head [len(magic)]byte
	if _, err := io.ReadFull(f, head[:]); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, err
	}
	return string(head[:]) == magic, nil
}
