package node

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"

	controlv1 "gotong/proto/control/v1"
	"gotong/tasks"
)

// requests plays a command that runs something.
type requests struct {
	grpc.ServerStream
	list []*controlv1.RunRequest
	next func() *controlv1.RunRequest // when list is at its end; nil: the end
}

func (r *requests) Recv() (*controlv1.RunRequest, error) {
	if len(r.list) > 0 {
		m := r.list[0]
		r.list = r.list[1:]
		return m, nil
	}
	if r.next == nil {
		return nil, io.EOF
	}
	return r.next(), nil
}

func (r *requests) Send(*controlv1.RunEvent) error { return nil }

func dataOf(s string) *controlv1.RunRequest {
	return &controlv1.RunRequest{Request: &controlv1.RunRequest_Data{Data: []byte(s)}}
}

func fileEnd() *controlv1.RunRequest {
	return &controlv1.RunRequest{Request: &controlv1.RunRequest_FileEnd{FileEnd: &controlv1.RunFileEnd{}}}
}

func runEnd() *controlv1.RunRequest {
	return &controlv1.RunRequest{Request: &controlv1.RunRequest_End{End: &controlv1.RunEnd{}}}
}

func itemsOf(items ...*controlv1.RunItem) *controlv1.RunRequest {
	return &controlv1.RunRequest{Request: &controlv1.RunRequest_Items{Items: &controlv1.RunItems{Items: items}}}
}

func item(seq uint64, values ...string) *controlv1.RunItem {
	out := &controlv1.RunItem{Seq: seq}
	for _, v := range values {
		out.Values = append(out.Values, []byte(v))
	}
	return out
}

func templateOf(args ...string) *controlv1.RunStart {
	start := &controlv1.RunStart{HasItems: true}
	for _, a := range args {
		start.Args = append(start.Args, []byte(a))
	}
	return start
}

func received(t *testing.T, start *controlv1.RunStart, list ...*controlv1.RunRequest) (*runItems, *uploads, error) {
	t.Helper()
	u := &uploads{dir: t.TempDir()}
	items, err := receiveItems(&requests{list: list}, u, start)
	if err == nil {
		t.Cleanup(items.close)
	}
	return items, u, err
}

func content(t *testing.T, u *uploads, id tasks.ContentID) string {
	t.Helper()
	r, size, err := u.OpenContent(id)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil || int64(len(data)) != size {
		t.Fatal(len(data), size, err)
	}
	return string(data)
}

func TestItemsBecomeTasks(t *testing.T) {
	staged := item(3, "dir/small", "dir/large", "x")
	staged.Inputs = []*controlv1.RunInput{{Name: "small", Data: []byte("few bytes"), Value: 1}, {Name: "2/large", Sent: true, Value: 2}}
	piped := item(7)
	piped.Stdin = &controlv1.RunInput{Data: []byte("a block")}
	empty := item(9)
	empty.Stdin = &controlv1.RunInput{Sent: true}
	start := templateOf("-{#}", "{1}", "{2}")
	items, u, err := received(t, start,
		itemsOf(item(1, "a"), item(2, "b", "c d")), dataOf("large "), dataOf("file"), fileEnd(), itemsOf(staged), itemsOf(piped), fileEnd(), itemsOf(empty), runEnd())
	if err != nil {
		t.Fatal(err)
	}
	task, err := items.tasks(start)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range items.count() {
		p := task(i)
		text := fmt.Sprintf("%q", p.Args)
		for _, in := range p.Inputs {
			text += fmt.Sprintf(" %s=%s", in.Name, content(t, u, in.Content))
		}
		if !p.Stdin.IsZero() {
			text += " < " + content(t, u, p.Stdin)
		}
		got = append(got, text)
	}
	want := []string{
		`["-1" "a"]`, `["-2" "b" "c d"]`, `["-3" "/in/small" "/in/2/large"] small=few bytes 2/large=large file`,
		`["-7"] < a block`, `["-9"]`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if e, err := items.entry(items.results, 3); err != nil || e.Seq != 7 {
		t.Errorf("%v, %v", e, err)
	}
}

func TestHostileItemsAreRefused(t *testing.T) {
	missing := item(1)
	missing.Inputs = []*controlv1.RunInput{{Name: "x", Sent: true}}
	outside := item(1)
	outside.Inputs = []*controlv1.RunInput{{Name: "../x"}}
	many := make([]*controlv1.RunRequest, maxRunItemFiles+1)
	for i := range many {
		many[i] = fileEnd()
	}
	for name, list := range map[string][]*controlv1.RunRequest{
		"after item 2":         {itemsOf(item(2), item(2)), runEnd()},
		"after item 0":         {itemsOf(item(0)), runEnd()},
		"did not come":         {itemsOf(missing), runEnd()},
		"cannot be called":     {itemsOf(outside), runEnd()},
		"message out of place": {dataOf("x"), fileEnd(), runEnd()},
		"values of more than":  {itemsOf(item(1, strings.Repeat("x", 1<<20))), runEnd()},
		"1025 values":          {itemsOf(item(1, make([]string, 1025)...)), runEnd()},
		"out of place":         append(many, runEnd()),
	} {
		if _, _, err := received(t, templateOf(), list...); !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := received(t, templateOf(), itemsOf(item(1))); !errors.Is(err, io.EOF) {
		t.Errorf("no end: %v", err)
	}
	if _, _, err := received(t, &controlv1.RunStart{}, itemsOf(item(1)), runEnd()); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("items that were not announced: %v", err)
	}
}

func BenchmarkItems(b *testing.B) {
	u := &uploads{dir: b.TempDir()}
	seq := 0
	stream := &requests{next: func() *controlv1.RunRequest {
		if seq >= b.N {
			return runEnd()
		}
		var list []*controlv1.RunItem
		for range 1000 {
			seq++
			list = append(list, item(uint64(seq), fmt.Sprint("item ", seq)))
		}
		return itemsOf(list...)
	}}
	start := templateOf("{}")
	items, err := receiveItems(stream, u, start)
	if err != nil {
		b.Fatal(err)
	}
	defer items.close()
	task, err := items.tasks(start)
	if err != nil {
		b.Fatal(err)
	}
	for i := range b.N {
		if p := task(i); p.Err != nil || len(p.Args) != 1 {
			b.Fatal(p)
		}
	}
}
