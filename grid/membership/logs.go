package membership

import (
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// repeatAfter is how long a message of Serf of one kind is not repeated
	// above debug level: gossip to a dead peer fails five times a second.
	repeatAfter = time.Minute
	// repeatKinds bounds the kinds remembered; beyond it all are forgotten.
	repeatKinds = 64
	// repeatPrefix is how much of a message says of what kind it is, at most;
	// names and numbers do not.
	repeatPrefix = 64
)

// serfLog translates the text levels of Serf and memberlist to slog, once for
// all. Theirs are a step too loud here: an error of theirs is often a peer that
// is switched off, and each change of state is logged by this package itself.
type serfLog struct {
	out *slog.Logger

	mu   sync.Mutex
	last map[string]time.Time // by kind of message
}

func newSerfLog(out *slog.Logger) *log.Logger {
	return log.New(&serfLog{out: out, last: make(map[string]time.Time)}, "", 0)
}

var serfLevels = map[string]slog.Level{
	"ERR": slog.LevelWarn, "ERROR": slog.LevelWarn,
	"WARN": slog.LevelInfo,
	"INFO": slog.LevelDebug, "DEBUG": slog.LevelDebug, "TRACE": slog.LevelDebug,
}

// Write takes one line: "[LEVEL] component: text".
func (w *serfLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	level := slog.LevelDebug
	if rest, ok := strings.CutPrefix(text, "["); ok {
		if name, rest, ok := strings.Cut(rest, "]"); ok {
			if known, ok := serfLevels[name]; ok {
				level, text = known, strings.TrimSpace(rest)
			}
		}
	}
	if level > slog.LevelDebug && (routine(text) || w.repeated(text)) {
		level = slog.LevelDebug
	}
	w.out.Log(context.Background(), level, "gossip", "text", text)
	return len(line), nil
}

// routine reports what is said often and means nothing: sending to a peer in
// dial back-off, and Serf's view of an end without a leave.
func routine(text string) bool {
	return strings.Contains(text, errBackOff.Error()) || strings.HasSuffix(text, "Shutdown without a Leave")
}

func (w *serfLog) repeated(text string) bool {
	kind := text[:min(len(text), repeatPrefix)]
	if i := strings.IndexAny(kind, "[('0123456789"); i > 0 {
		kind = kind[:i]
	}
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if last, ok := w.last[kind]; ok && now.Sub(last) < repeatAfter {
		return true
	}
	if len(w.last) >= repeatKinds {
		clear(w.last)
	}
	w.last[kind] = now
	return false
}
