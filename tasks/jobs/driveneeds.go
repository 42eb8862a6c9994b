package jobs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"gotong/grid/blake3"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// common is what all tasks of a step get from the steps that it needs.
type common struct {
	files     []tasks.Input
	places    map[tasks.ContentID]tasks.Stored
	stdin     tasks.ContentID
	stdinSize int64
}

func (c common) inputs(own []tasks.Input) []tasks.Input { return slices.Concat(own, c.files) }

func (c common) stored(own map[tasks.ContentID]tasks.Stored) map[tasks.ContentID]tasks.Stored {
	out := make(map[tasks.ContentID]tasks.Stored, len(own)+len(c.places))
	for _, m := range []map[tasks.ContentID]tasks.Stored{own, c.places} {
		for id, s := range m {
			out[id] = s
		}
	}
	return out
}

// gather collects what the step takes from all tasks of others.
func (r *stepRun) gather() error {
	r.common.places = map[tasks.ContentID]tasks.Stored{}
	for _, need := range r.step.Needs {
		if !need.Gather {
			continue
		}
		if err := r.gatherFrom(need); err != nil {
			return fmt.Errorf("results of step %q: %w", r.plan.Steps[need.Step].Name, err)
		}
	}
	fewHolders(r.common.places)
	return nil
}

// holdersMost is how many holders are named for all contents of a step, or a task,
// together: one for each of tasks.MaxInputs.
const holdersMost = tasks.MaxInputs

// fewHolders keeps the places of many contents within a message. Holders are hints, of
// which any knows the others.
func fewHolders(places map[tasks.ContentID]tasks.Stored) {
	each := holdersMost / max(1, len(places))
	for id, s := range places {
		if len(s.Holders) > each {
			s.Holders = s.Holders[:each]
			places[id] = s
		}
	}
}

func (r *stepRun) gatherFrom(need Need) error {
	from := r.plan.Steps[need.Step]
	var stdin *os.File
	hash := blake3.New()
	if need.Stdin {
		var err error
		if stdin, err = os.CreateTemp(r.dir, "stdin-"); err != nil {
			return err
		}
		defer stdin.Close()
	}
	for i := range from.Items.Count {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		out, ok, err := r.result(from.First + i)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if need.Stdin {
			if out.StdoutSize() > tasks.MaxOutputBytes-r.common.stdinSize {
				return invalid("standard outputs of together more than %d bytes, which is the most that a task takes as its standard input", int64(tasks.MaxOutputBytes))
			}
			n, err := r.appendStdout(io.MultiWriter(stdin, hash), out)
			if err != nil {
				return fmt.Errorf("standard output of task %d: %w", i, err)
			}
			r.common.stdinSize += n
		}
		if need.Files {
			r.take(-1, out, from.Name+"/"+strconv.Itoa(i)+"/", func(in tasks.Input) { r.common.files = append(r.common.files, in) }, r.common.places)
		}
		if len(r.common.files) > tasks.MaxInputs {
			return invalid("more than %d files, which is the most that a task takes; take its standard output instead, or leave fewer files", tasks.MaxInputs)
		}
	}
	if !need.Stdin || r.common.stdinSize == 0 {
		return nil
	}
	hash.Sum(r.common.stdin[:0])
	return os.Rename(stdin.Name(), r.stdinPath(r.common.stdin))
}

func (r *stepRun) appendStdout(to io.Writer, out tasks.Result) (int64, error) {
	from, err := r.openStdout(out)
	if err != nil {
		return 0, err
	}
	defer from.Close()
	return io.Copy(to, from)
}

func (r *stepRun) stdinPath(id tasks.ContentID) string { return r.dir + "/" + id.String() }

// result returns what a task of a step before left; false: it failed, which the
// step forgives.
func (r *stepRun) result(task int) (tasks.Result, bool, error) {
	res, ok, err := r.Job.Result(task)
	if err != nil {
		return tasks.Result{}, false, err
	}
	if !ok || res.State != tasks.StateDone {
		return tasks.Result{}, false, nil
	}
	out, err := res.Decode()
	out.Task.Index = task
	return out, err == nil, err
}

// take makes the outputs of a result inputs below prefix, of the task at place
// or of all with -1.
func (r *stepRun) take(place int, out tasks.Result, prefix string, add func(tasks.Input), places map[tasks.ContentID]tasks.Stored) {
	for _, o := range out.Outputs {
		add(tasks.Input{Name: prefix + o.Name, Content: o.Content, Size: o.Size})
		if o.Stored != nil {
			places[o.Content] = *o.Stored
		} else {
			r.files.add(place, o.Content, localFile{task: out.Task.Index, name: o.Name})
		}
	}
}

// fromNeeds adds what a task gets from the tasks of the same place.
func (r *stepRun) fromNeeds(place int, part *scheduler.Part) error {
	for _, need := range r.step.Needs {
		if need.Gather || !need.Files && !need.Stdin {
			continue
		}
		from := r.plan.Steps[need.Step]
		out, ok, err := r.result(from.First + place)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if need.Stdin && out.StdoutSize() > 0 {
			r.takeStdout(place, out, part)
		}
		if need.Files {
			own := slices.Clone(part.Inputs)
			r.take(place, out, from.Name+"/", func(in tasks.Input) { own = append(own, in) }, part.Stored)
			part.Near = append(part.Near, out.Peer)
			part.Inputs = own
		}
	}
	fewHolders(part.Stored)
	return nil
}

// takeStdout makes the standard output of a result the standard input of the task at
// place.
func (r *stepRun) takeStdout(place int, out tasks.Result, part *scheduler.Part) {
	part.StdinSize = out.StdoutSize()
	switch large := out.LargeStdout; {
	case large == nil:
		part.Stdin = blake3.Sum256(out.Stdout)
	case large.Stored != nil:
		part.Stdin, part.Stored[large.Content] = large.Content, *large.Stored
		part.Near = append(part.Near, out.Peer)
		return
	default:
		part.Stdin = large.Content
	}
	r.files.add(place, part.Stdin, localFile{task: out.Task.Index})
}

func bytesReader(b []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }
