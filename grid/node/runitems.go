package node

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
	"gotong/tasks/batch"
	"gotong/tasks/scheduler"
)

// maxRunItemFiles bounds the files of one task.
const maxRunItemFiles = 1 + tasks.MaxInputs

// inputRoot is where tasks see their inputs.
const inputRoot = "/in/"

// runItems are the tasks of a run, on disk, whatever their number.
type runItems struct {
	file    *os.File
	list    *batch.List // read as tasks are handed out
	results *batch.List // read as results come
	single  bool        // one task without an item; file is nil
}

// receiveItems takes in what follows the files of a start, to the end.
func receiveItems(stream runStream, u *uploads, start *controlv1.RunStart) (*runItems, error) {
	if !start.HasItems {
		request, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if request.GetEnd() == nil {
			return nil, fmt.Errorf("%w: more than the announced files", tasks.ErrInvalid)
		}
		return &runItems{single: true}, nil
	}
	f, err := os.OpenFile(filepath.Join(u.dir, "items"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	r := itemReceiver{stream: stream, uploads: u, out: bufio.NewWriterSize(f, 256<<10)}
	err = errors.Join(r.run(), r.out.Flush())
	items := &runItems{file: f}
	if err == nil {
		items.list, err = batch.OpenList(f, r.bytes, scheduler.MaxTasks)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	items.results = items.list.Again()
	return items, nil
}

func (r *runItems) close() {
	if r.file != nil {
		r.file.Close()
	}
}

func (r *runItems) count() int {
	if r.single {
		return 1
	}
	return r.list.Len()
}

// entry reads what is known of a task from one of the lists.
func (r *runItems) entry(from *batch.List, index int) (*controlv1.RunEntry, error) {
	if r.single {
		return &controlv1.RunEntry{Seq: 1}, nil
	}
	raw, err := from.Entry(index)
	if err != nil {
		return nil, err
	}
	e := &controlv1.RunEntry{}
	return e, proto.Unmarshal(raw, e)
}

// tasks returns what makes the tasks of a job of these items.
func (r *runItems) tasks(start *controlv1.RunStart) (func(index int) scheduler.Part, error) {
	args := make([]string, len(start.Args))
	for i, arg := range start.Args {
		args[i] = string(arg)
	}
	if r.single {
		return func(int) scheduler.Part { return scheduler.Part{Args: args} }, nil
	}
	template, err := batch.ParseTemplate(args, start.Repeat)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tasks.ErrInvalid, err)
	}
	return func(index int) scheduler.Part {
		e, err := r.entry(r.list, index)
		if err != nil {
			return scheduler.Part{Err: fmt.Errorf("its item cannot be read: %w", err)}
		}
		return partOf(e, template)
	}, nil
}

func partOf(e *controlv1.RunEntry, template *batch.Template) (p scheduler.Part) {
	values := make([]string, len(e.Values))
	for i, v := range e.Values {
		values[i] = string(v)
	}
	for _, in := range e.Inputs {
		p.Inputs = append(p.Inputs, tasks.Input{Name: in.Name, Content: tasks.ContentID(in.Content), Size: in.Size})
		if i := int(in.Value); i > 0 && i <= len(values) {
			values[i-1] = inputRoot + in.Name
		}
	}
	if e.Stdin != nil && e.Stdin.Size > 0 {
		p.Stdin, p.StdinSize = tasks.ContentID(e.Stdin.Content), e.Stdin.Size
	}
	p.Args, p.Err = template.Expand(int(e.Seq), values)
	return p
}

// itemReceiver stores the items of a run and their files.
type itemReceiver struct {
	stream  runStream
	uploads *uploads
	out     *bufio.Writer
	bytes   int64
	count   int
	seq     uint64   // of the last item
	sent    []upload // files that came and that no item has named yet
	buffer  []byte
	entry   []byte
}

func (r *itemReceiver) run() error {
	for {
		request, err := r.stream.Recv()
		if err != nil {
			return err
		}
		switch {
		case request.GetEnd() != nil && len(r.sent) == 0:
			return nil
		case request.GetItems() != nil:
			for _, item := range request.GetItems().Items {
				if err := r.item(item); err != nil {
					return fmt.Errorf("item %d: %w", item.GetSeq(), err)
				}
			}
		case (len(request.GetData()) > 0 || request.GetFileEnd() != nil) && len(r.sent) < maxRunItemFiles:
			got, err := r.file(request)
			if err != nil {
				return fmt.Errorf("file of an item: %w", err)
			}
			r.sent = append(r.sent, got)
		default:
			return fmt.Errorf("%w: a message out of place", tasks.ErrInvalid)
		}
	}
}

func (r *itemReceiver) file(request *controlv1.RunRequest) (upload, error) {
	if request.GetFileEnd() != nil {
		return r.uploads.store(nil) // an empty file has no pieces
	}
	return r.uploads.receive(r.stream, request.GetData(), maxRunBytes)
}

// item stores one item.
func (r *itemReceiver) item(item *controlv1.RunItem) error {
	switch {
	case item.GetSeq() <= r.seq || item.Seq > math.MaxInt32:
		return fmt.Errorf("%w: after item %d", tasks.ErrInvalid, r.seq)
	case r.count >= scheduler.MaxTasks:
		return fmt.Errorf("%w: more than %d items", tasks.ErrInvalid, scheduler.MaxTasks)
	case len(item.Values) > batch.MaxValues || len(item.Inputs) > tasks.MaxInputs:
		return fmt.Errorf("%w: %d values and %d files", tasks.ErrInvalid, len(item.Values), len(item.Inputs))
	}
	r.seq = item.Seq
	r.count++
	entry := &controlv1.RunEntry{Seq: item.Seq, Values: item.Values}
	for _, in := range item.Inputs {
		if !tasks.ValidName(in.GetName()) {
			return fmt.Errorf("%w: an input cannot be called %q", tasks.ErrInvalid, in.GetName())
		}
		stored, err := r.input(in)
		if err != nil {
			return err
		}
		entry.Inputs = append(entry.Inputs, stored)
	}
	if item.Stdin != nil {
		var err error
		if entry.Stdin, err = r.input(item.Stdin); err != nil {
			return err
		}
	}
	return r.keep(entry)
}

func (r *itemReceiver) keep(entry *controlv1.RunEntry) (err error) {
	r.entry, err = proto.MarshalOptions{}.MarshalAppend(r.entry[:0], entry)
	if err != nil {
		return err
	}
	if len(r.entry) > batch.MaxEntryBytes {
		return fmt.Errorf("%w: values of more than %s", tasks.ErrInvalid, Size(batch.MaxEntryBytes))
	}
	r.buffer = batch.AppendEntry(r.buffer[:0], r.entry)
	r.bytes += int64(len(r.buffer))
	_, err = r.out.Write(r.buffer)
	return err
}

func (r *itemReceiver) input(in *controlv1.RunInput) (*controlv1.RunEntryInput, error) {
	var got upload
	switch {
	case in.Sent && len(r.sent) == 0:
		return nil, fmt.Errorf("%w: file %q did not come", tasks.ErrInvalid, in.Name)
	case in.Sent:
		got, r.sent = r.sent[0], r.sent[1:]
	default:
		var err error
		if got, err = r.uploads.store(in.Data); err != nil {
			return nil, err
		}
	}
	return &controlv1.RunEntryInput{Name: in.Name, Content: bytes.Clone(got.content[:]), Size: got.size, Value: in.Value}, nil
}
