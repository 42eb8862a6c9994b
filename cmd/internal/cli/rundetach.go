package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gotong/grid/blake3"
	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
	"gotong/tasks/jobfile"
	"gotong/tasks/jobs"
)

// attachedFlags mean something only while the command waits for results.
var attachedFlags = []string{
	"jobs", "output", "as-they-come", "keep-order", "tag", "joblog", "resume", "resume-failed", "halt", "dry-run",
}

// detachable refuses what a run that nobody waits for cannot do.
func (r *clientRun) detachable(changed func(string) bool) error {
	for _, name := range attachedFlags {
		if changed(name) {
			return fmt.Errorf("--%s does not go with --detach: nobody waits for the results; gotong job results fetches them", name)
		}
	}
	if r.start.TimeoutPercent > 0 {
		return fmt.Errorf("--timeout %s does not go with --detach; give a time", r.flags.timeout)
	}
	return nil
}

// detach submits the run as a job of one step, prints its id and returns.
func (r *clientRun) detach(ctx context.Context, peer controlv1.ControlClient) error {
	temp, err := os.MkdirTemp("", "gotong-run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	d := &detached{run: r, temp: temp, draft: &jobfile.Draft{
		Files: map[tasks.ContentID]string{}, Sizes: map[tasks.ContentID]int64{},
	}}
	if err := d.build(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return r.app.submit(ctx, peer, d.draft)
}

func (r *clientRun) runtime() tasks.Runtime {
	if r.flags.native {
		return tasks.RuntimeNative
	}
	return tasks.RuntimeWASI
}

// detached makes a plan of a run.
type detached struct {
	run   *clientRun
	temp  string
	draft *jobfile.Draft
	files int // written to temp
}

func (d *detached) build() error {
	r := d.run
	limits := tasks.RunLimits(int64(r.start.MemoryBytes), time.Duration(r.start.TimeoutMillis)*time.Millisecond)
	step := jobs.Step{
		Name: "run", Runtime: r.runtime(), Limits: limits, Verify: r.flags.verify, Outputs: true,
		Retries: max(0, int(r.flags.retries)-1), MaxPeers: int(r.flags.peers), OnFailure: jobs.FailureFinish,
	}
	for i, path := range r.files {
		in, err := d.send(path)
		if err != nil {
			return err
		}
		if i < len(r.module) {
			step.Module = in.Content
			continue
		}
		in.Name = filepath.Base(path)
		step.Common = append(step.Common, in)
	}
	path := filepath.Join(d.temp, "items")
	items, err := jobs.WriteItems(path, d.items)
	if err != nil {
		return err
	}
	if items.Count == 0 {
		return &failure{code: exitFailed, what: "there were no items", meaning: "nothing was submitted"}
	}
	if items.Data == nil {
		d.draft.Files[items.Content], d.draft.Sizes[items.Content] = path, items.Size
	}
	step.Items = items
	if d.templates() {
		for _, arg := range r.start.Args {
			step.Args = append(step.Args, string(arg))
		}
	}
	program := ""
	if r.flags.native {
		program = string(r.start.Args[0])
	}
	if len(r.module) > 0 {
		program = r.module[0]
	}
	name := strings.TrimSuffix(filepath.Base(program), filepath.Ext(program))
	if !tasks.ValidName(name) || len(name) > jobs.MaxNameBytes {
		name = "run"
	}
	d.draft.Plan = jobs.Plan{Name: name, Keepers: jobs.KeepersAny, NoCache: r.flags.noCache, Steps: []jobs.Step{step}}
	return nil
}

// templates reports whether the tasks are made of arguments with replacement
// strings where they are driven; otherwise each item has all its arguments.
func (d *detached) templates() bool { return d.run.start.HasItems && !d.run.start.Repeat }

// items adds the tasks.
func (d *detached) items(add func(jobs.Item) error) error {
	if !d.run.start.HasItems {
		item := jobs.Item{}
		for _, arg := range d.run.start.Args {
			item.Words = append(item.Words, string(arg))
		}
		return add(item)
	}
	return d.run.eachItem(func(item runItem) error {
		out := jobs.Item{Words: slices.Clone(item.values)}
		if d.run.splitter != nil {
			in, err := d.block(&out, item.block)
			if err != nil {
				return err
			}
			out.Stdin, out.StdinSize = in.Content, in.Size
		}
		staged, err := d.run.stage.files(item.values)
		if err != nil {
			return err
		}
		for _, file := range staged {
			in, err := d.staged(&out, file)
			if err != nil {
				return err
			}
			in.Name = file.name
			out.Inputs = append(out.Inputs, in)
			out.Words[file.value-1] = "/in/" + file.name
		}
		if !d.templates() {
			if out.Words, err = d.run.template.Expand(int(item.seq), out.Words); err != nil {
				return err
			}
		}
		return add(out)
	})
}

// send has a file sent with the plan.
func (d *detached) send(path string) (in tasks.Input, err error) {
	full, err := absolute(path)
	if err != nil {
		return in, err
	}
	f, err := os.Open(full)
	if err != nil {
		return in, err
	}
	defer f.Close()
	hash := blake3.New()
	if in.Size, err = io.Copy(hash, f); err != nil {
		return in, fmt.Errorf("%s: %w", path, err)
	}
	hash.Sum(in.Content[:0])
	d.draft.Files[in.Content], d.draft.Sizes[in.Content] = full, in.Size
	return in, nil
}

// staged takes in a file of one task: its bytes ride in the list when it is small,
// so that many small files are one content, else it is sent by itself.
func (d *detached) staged(item *jobs.Item, file stagedFile) (tasks.Input, error) {
	if file.size > jobs.MaxInlineFile {
		return d.send(file.path)
	}
	data, err := os.ReadFile(file.path)
	if err != nil {
		return tasks.Input{}, err
	}
	in, ok := inline(item, data)
	if !ok {
		return d.send(file.path)
	}
	return in, nil
}

// block gives a task its standard input.
func (d *detached) block(item *jobs.Item, data []byte) (tasks.Input, error) {
	if in, ok := inline(item, data); ok {
		return in, nil
	}
	d.files++
	path := filepath.Join(d.temp, "block-"+strconv.Itoa(d.files))
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return tasks.Input{}, err
	}
	return d.send(path)
}

// inline puts bytes into the list of items if they are few enough.
func inline(item *jobs.Item, data []byte) (tasks.Input, bool) {
	room := jobs.MaxInlineItem
	for _, have := range item.Inline {
		room -= len(have)
	}
	if len(data) == 0 || len(data) > min(room, jobs.MaxInlineFile) {
		return tasks.Input{}, false
	}
	item.Inline = append(item.Inline, slices.Clone(data))
	return tasks.Input{Content: blake3.Sum256(data), Size: int64(len(data))}, true
}
