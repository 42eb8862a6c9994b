package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"gotong/cmd/internal/config"
	"gotong/grid/node"
)

// memoryLimit is what the peer lets the garbage of backups and restores grow to,
// so that all of it stays below 256 MiB. What is in use at once is bounded
// elsewhere, lower than this; above, the collector only works more.
const memoryLimit = 232 << 20

// limitMemory keeps the peer small, unless the environment says how small.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
}

func (a *app) upCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "up",
		Short: "Be a peer: serve until stopped",
		Long: `Up runs the peer of the home directory in the foreground. SIGTERM or Ctrl-C lets
running transfers end and stops within 10 seconds; a kill at any moment is safe.
Flags override the home's configuration for this run only. SIGHUP has it read again
(gotong config reload), unless standard input is a terminal, whose end it may mean.`,
		Example: "  gotong up\n  gotong up --home /srv/gotong --json",
		Args:    exactArgs(0),
	}
	addPeerFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		loaded, err := a.loadConfig(c)
		if err != nil {
			return err
		}
		limitMemory()
		hangups := hangups()
		logger, level := a.logger(loaded.Config.Log)
		options := node.Options{Config: loaded.Config, Logger: logger, Reload: func() (node.Config, error) {
			again, err := config.Load(a.home, c.Flags())
			if err == nil {
				setLevel(level, again.Config.Log)
			}
			return again.Config, err
		}}
		if err := node.AwaitMembership(c.Context(), a.home, options, a.printOutcast); err != nil {
			if c.Context().Err() != nil { // stopped while it waited
				return nil
			}
			return err
		}
		peer, err := node.Open(a.home, options)
		if err != nil {
			return err
		}
		return peer.Run(c.Context(), func(r node.Ready) {
			go reloadOn(c.Context(), hangups, peer, logger)
			a.printReady(r)
		})
	}
	return c
}

// printOutcast says why nothing more happens.
func (a *app) printOutcast() {
	fmt.Fprint(a.stderr, "gotong: this peer was removed from the grid\n"+
		"  means: other peers refuse it; what they hold for its owner stays with them for a while, and what it holds for them stays here\n"+
		"  next:  ask who did it. This command waits, so that an owner can take back what was signed on a stolen machine.\n"+
		"         To come back otherwise: ask for an invite, then gotong join CODE --home NEW\n")
}

func (a *app) printReady(r node.Ready) {
	if a.json {
		_ = a.printJSON(struct { // a closed standard output must not end the peer
			Type   string `json:"type"`
			Peer   string `json:"peer"`
			Listen string `json:"listen"`
		}{"ready", r.Peer.String(), r.Listen})
		return
	}
	fmt.Fprintf(a.stdout, "%s is up: peer %s of grid %s, listening on %s\n", printable(r.Name), r.Peer.Short(), printable(r.GridName), r.Listen)
}

// reloadOn has the configuration read again at each hangup until ctx ends.
func reloadOn(ctx context.Context, hangups <-chan os.Signal, peer *node.Peer, logger *slog.Logger) {
	for {
		select {
		case <-hangups:
			if _, err := peer.Reload(); err != nil {
				logger.Error("the configuration is not taken over", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// logger returns what the peer logs to, and its level, which may be changed.
func (a *app) logger(c node.LogConfig) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	setLevel(level, c)
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(a.stderr, options)), level
	}
	return slog.New(slog.NewTextHandler(a.stderr, options)), level
}

func setLevel(level *slog.LevelVar, c node.LogConfig) {
	_ = level.UnmarshalText([]byte(c.Level)) // validated with the configuration
}
