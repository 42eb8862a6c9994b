package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
	"gotong/tasks/batch"
)

const (
	// itemsBytes and itemsMost bound the items of one message.
	itemsBytes = 128 << 10
	itemsMost  = 1024
	// inlineFileBytes is the largest file of an item that rides with it.
	inlineFileBytes = 32 << 10
)

// send sends the request, its files and its items in bounded pieces.
func (r *clientRun) send(call *runCall) error {
	r.start.Progress = !r.flags.dryRun && r.app.wantsProgress()
	if err := call.send(&controlv1.RunRequest{Request: &controlv1.RunRequest_Start{Start: r.start}}); err != nil {
		return err
	}
	buffer := make([]byte, uploadPieceBytes)
	for _, name := range r.files {
		if err := sendFile(call, name, buffer); err != nil {
			return err
		}
	}
	if r.start.HasItems && !r.flags.dryRun {
		s := &itemSender{run: r, call: call, buffer: buffer}
		if err := r.eachItem(s.item); err != nil {
			return err
		}
		if err := s.flush(); err != nil {
			return err
		}
	}
	return call.sendEnd()
}

func sendFile(call *runCall, name string, buffer []byte) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return sendReader(call, f, name, buffer)
}

func sendReader(call *runCall, from io.Reader, name string, buffer []byte) error {
	for {
		n, err := from.Read(buffer)
		if err := call.sendData(buffer[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return call.sendFileEnd()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// runItem is one task: its number from 1, and its values or its block.
type runItem struct {
	seq    uint64
	values []string
	block  []byte
}

// eachItem calls f with each task that is to be run.
func (r *clientRun) eachItem(f func(runItem) error) error {
	seq := uint64(0)
	give := func(item runItem) error {
		seq++
		item.seq = seq
		if r.outputs != nil {
			r.outputs.expect(item)
		}
		if r.skip[seq] {
			r.skipped++
			return nil
		}
		return f(item)
	}
	if r.splitter != nil {
		for block, err := range r.splitter.Blocks(r.app.stdin) {
			if err == nil {
				err = give(runItem{block: block})
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	for values, err := range r.plan.Tasks(r.openSource) {
		if err == nil {
			err = give(runItem{values: values})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *clientRun) openSource(path string) (io.ReadCloser, error) {
	if path == batch.StandardInput {
		return io.NopCloser(r.app.stdin), nil
	}
	return os.Open(path)
}

// itemSender collects items into messages.
type itemSender struct {
	run    *clientRun
	call   *runCall
	items  []*controlv1.RunItem
	bytes  int
	buffer []byte
}

func (s *itemSender) item(item runItem) error {
	out := &controlv1.RunItem{Seq: item.seq}
	for _, v := range item.values {
		out.Values = append(out.Values, []byte(v))
		s.bytes += len(v) + 16
	}
	if s.run.splitter != nil {
		stdin, err := s.block(item.block)
		if err != nil {
			return err
		}
		out.Stdin = stdin
	}
	staged, err := s.run.stage.files(item.values)
	if err != nil {
		return err
	}
	for _, file := range staged {
		in, err := s.file(file)
		if err != nil {
			return err
		}
		out.Inputs = append(out.Inputs, in)
	}
	s.bytes += 16
	s.items = append(s.items, out)
	sent := out.GetStdin().GetSent()
	for _, in := range out.Inputs {
		sent = sent || in.Sent
	}
	if sent || s.bytes >= itemsBytes || len(s.items) >= itemsMost {
		return s.flush()
	}
	return nil
}

func (s *itemSender) flush() error {
	if len(s.items) == 0 {
		return nil
	}
	request := &controlv1.RunRequest{Request: &controlv1.RunRequest_Items{Items: &controlv1.RunItems{Items: s.items}}}
	s.items, s.bytes = nil, 0
	return s.call.send(request)
}

// block sends a block, or returns it when it is small.
func (s *itemSender) block(data []byte) (*controlv1.RunInput, error) {
	if len(data) <= inlineFileBytes {
		s.bytes += len(data)
		return &controlv1.RunInput{Data: append([]byte(nil), data...)}, nil
	}
	if err := s.call.sendData(data); err != nil {
		return nil, err
	}
	return &controlv1.RunInput{Sent: true}, s.call.sendFileEnd()
}

// file sends a staged file, or returns it when it is small.
func (s *itemSender) file(file stagedFile) (*controlv1.RunInput, error) {
	in := &controlv1.RunInput{Name: file.name, Value: uint32(file.value)}
	f, err := os.Open(file.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, min(inlineFileBytes, file.size)+1)
	n, err := io.ReadFull(f, head)
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		in.Data = head[:n]
		s.bytes += n
		return in, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", file.path, err)
	}
	if err := s.call.sendData(head); err != nil {
		return nil, err
	}
	in.Sent = true
	return in, sendReader(s.call, f, file.path, s.buffer)
}

// stageAll is --stage without a number.
const stageAll = "all"

// stagePlan says which values of a task name files to send along.
type stagePlan struct {
	all    bool
	at     map[int]bool      // by number of the value, from 1
	common map[string]string // names below /in that --input takes
}

func parseStage(s string) (p stagePlan, err error) {
	if s == "" {
		return p, nil
	}
	if p.all = s == stageAll; p.all {
		return p, nil
	}
	p.at = map[int]bool{}
	for field := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 || n > batch.MaxValues {
			return p, fmt.Errorf("--stage=%s: %q is no number of a value; --stage alone sends the file of every value", s, field)
		}
		p.at[n] = true
	}
	return p, nil
}

func (p stagePlan) any() bool { return p.all || len(p.at) > 0 }

// stagedFile is a file that a value names.
type stagedFile struct {
	value int // from 1
	path  string
	name  string // below /in
	size  int64
}

// files returns what is sent along with the values of a task.
func (p stagePlan) files(values []string) ([]stagedFile, error) {
	if !p.any() {
		return nil, nil
	}
	var list []stagedFile
	taken := map[string]bool{}
	for i, v := range values {
		if !p.all && !p.at[i+1] {
			continue
		}
		size, err := stageable(v)
		if err != nil {
			return nil, err
		}
		name := filepath.Base(v)
		if taken[name] || p.common[name] != "" {
			name = fmt.Sprintf("%d/%s", i+1, name) // two files of one name
		}
		if !tasks.ValidName(name) {
			return nil, fmt.Errorf("%q cannot be sent: a task cannot see a file of this name", v)
		}
		taken[name] = true
		list = append(list, stagedFile{value: i + 1, path: v, name: name, size: size})
	}
	return list, nil
}

// stageable checks that a value names a file that can be sent.
func stageable(path string) (size int64, err error) {
	info, err := os.Stat(path)
	switch {
	case err != nil && strings.ContainsAny(path, "*?["):
		return 0, fmt.Errorf("%w; patterns are not expanded here: leave them to the shell, without quotes", err)
	case err != nil:
		return 0, err
	case info.IsDir():
		return 0, fmt.Errorf("%s is a directory; --stage sends files: find %s -type f | gotong run --stage …", path, path)
	case !info.Mode().IsRegular():
		return 0, fmt.Errorf("%s is not a regular file", path)
	}
	return info.Size(), nil
}
