package jobs

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"testing"
	"time"

	"gotong/grid"
	"gotong/tasks"
	"gotong/tasks/scheduler"
	"gotong/tasks/taskrpc"
)

// keyOf returns a fixed node key.
func keyOf(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func peerOf(key ed25519.PrivateKey) grid.PeerID {
	return grid.PeerIDOf(key.Public().(ed25519.PublicKey))
}

func inlineList(t testing.TB, items ...Item) Items {
	t.Helper()
	var buf bytes.Buffer
	w := NewItemsWriter(&buf)
	for _, item := range items {
		if err := w.Add(item); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return Items{Count: len(items), Content: tasks.ContentID{1, byte(len(items))}, Size: int64(buf.Len()), Data: buf.Bytes()}
}

// listOf is a list that rides in the plan, if it is small enough for that.
func listOf(t testing.TB, n int) Items {
	items := inlineList(t, words(n)...)
	if items.Size > InlineItemsBytes {
		items.Data = nil
	}
	return items
}

func words(n int) []Item {
	items := make([]Item, n)
	for i := range items {
		items[i].Words = []string{fmt.Sprintf("item-%d", i)}
	}
	return items
}

// planOf returns a plan whose steps have these numbers of tasks.
func planOf(t testing.TB, counts ...int) Plan {
	t.Helper()
	p := Plan{
		Job: tasks.JobID{7}, Name: "a job", Owner: grid.OwnerID{3}, Submitter: peerOf(keyOf(1)),
		Created: time.Unix(1_800_000_000, 0).UTC(), Expires: time.Unix(1_800_600_000, 0).UTC(),
		Retention: 168 * time.Hour, Keepers: KeepersAny, Key: tasks.Key{9},
	}
	for i, n := range counts {
		p.Steps = append(p.Steps, Step{
			Name: fmt.Sprintf("step-%d", i), Runtime: tasks.RuntimeWASI, Module: tasks.ContentID{5}, Args: []string{"{}"},
			Items: listOf(t, n), Limits: tasks.DefaultLimits(), OnFailure: FailureFinish,
		})
	}
	p.number()
	return p
}

// signedResults returns results of one worker under one signature.
func signedResults(t testing.TB, p Plan, worker ed25519.PrivateKey, state tasks.State, text string, indexes ...int) []Result {
	t.Helper()
	var raws [][]byte
	for _, index := range indexes {
		r := tasks.Result{Task: tasks.TaskID{Job: p.Job, Index: index}, State: state, Stdout: []byte(text), Engine: "engine", Elapsed: time.Millisecond}
		if state != tasks.StateDone {
			r.ExitCode = 1
		}
		raw, err := taskrpc.EncodeResult(r, [32]byte{byte(index)})
		if err != nil {
			t.Fatal(err)
		}
		raws = append(raws, raw)
	}
	signed := scheduler.SignResults(worker, raws)
	batch := &Batch{signed.Key, signed.Signature, signed.Body}
	var out []Result
	for i, index := range indexes {
		out = append(out, Result{Index: index, State: state, Peer: peerOf(worker), Raw: raws[i], Batch: batch, Position: i, Attempts: 1})
	}
	return out
}
