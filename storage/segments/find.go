package segments

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"gotong/grid"
	"gotong/storage"
)

// askAtOnce bounds how many members are asked the same at the same time.
const askAtOnce = 16

// source is a peer that is said to have a shard.
type source struct {
	peer  grid.PeerID
	shard int
}

// found is what one member answered.
type found[T any] struct {
	peer   grid.PeerID
	answer T
	err    error
}

// ask puts one question to all of the given peers, some at a time, each within
// limit, and returns the answers as they come. The channel is closed after
// the last one and never blocks the asking.
func ask[T any](ctx context.Context, s *Segments, peers []grid.PeerID, limit time.Duration, question func(context.Context, storage.RemoteShards) (T, error)) <-chan found[T] {
	return askEach(ctx, s, peers, func(grid.PeerID) time.Duration { return limit },
		func(ctx context.Context, _ grid.PeerID, store storage.RemoteShards) (T, error) {
			return question(ctx, store)
		})
}

// askEach is ask with a limit and a question for each peer.
func askEach[T any](ctx context.Context, s *Segments, peers []grid.PeerID, limit func(grid.PeerID) time.Duration,
	question func(context.Context, grid.PeerID, storage.RemoteShards) (T, error)) <-chan found[T] {
	out := make(chan found[T], len(peers))
	queue := make(chan grid.PeerID, len(peers))
	for _, peer := range peers {
		queue <- peer
	}
	close(queue)
	var askers sync.WaitGroup
	for range min(askAtOnce, len(peers)) {
		askers.Add(1)
		s.running.Go(func() {
			defer askers.Done()
			for peer := range queue {
				answer, err := askOne(ctx, s, peer, limit(peer), question)
				out <- found[T]{peer, answer, err}
			}
		})
	}
	s.running.Go(func() {
		askers.Wait()
		close(out)
	})
	return out
}

func askOne[T any](ctx context.Context, s *Segments, peer grid.PeerID, limit time.Duration,
	question func(context.Context, grid.PeerID, storage.RemoteShards) (T, error)) (answer T, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer in %s: %w", limit, ErrTimeout))
	defer cancel()
	store, err := s.cfg.Holders.Shards(peer)
	if err != nil {
		return answer, err
	}
	answers := make(chan found[T], 1)
	s.running.Go(func() {
		answer, err := question(ctx, peer, store)
		answers <- found[T]{peer, answer, err}
	})
	select {
	case a := <-answers:
		return a.answer, cause(ctx, a.err)
	case <-ctx.Done(): // whether the question notices or not
		return answer, context.Cause(ctx)
	}
}

// limitFor returns how long each peer has for an answer: hardly anything of
// limit when it failed a moment ago.
func (s *Segments) limitFor(limit time.Duration) func(grid.PeerID) time.Duration {
	return func(peer grid.PeerID) time.Duration {
		if s.peers.skip(peer, toGet) != nil {
			return limit / doubtful
		}
		return limit
	}
}

// whoHas asks all members for the shards of a segment.
func (s *Segments) whoHas(ctx context.Context, id storage.SegmentID) <-chan found[[]storage.ShardAnswer] {
	members := slices.Clone(s.cfg.Holders.Members())
	return ask(ctx, s, members, s.cfg.AskTimeout, func(ctx context.Context, store storage.RemoteShards) ([]storage.ShardAnswer, error) {
		answers, err := store.Have(ctx, []storage.SegmentID{id})
		if err != nil {
			return nil, err
		}
		if len(answers) != 1 || answers[0].Segment != id || len(answers[0].Shards) > storage.MaxShards {
			return nil, fmt.Errorf("answered another question: %w", storage.ErrCorrupt)
		}
		return answers[0].Shards, nil
	})
}

// readable returns the shards that an answer offers.
func readable(answers []storage.ShardAnswer) []int {
	var out []int
	for _, a := range answers {
		if (a.State == storage.ShardStored || a.State == storage.ShardTrash) && a.Index >= 0 && a.Index < storage.MaxShards {
			out = append(out, a.Index)
		}
	}
	return out
}
