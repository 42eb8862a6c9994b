package cli

import (
	"context"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

func (a *app) catCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "cat SNAPSHOT:PATH",
		Short:   "Write one file of a snapshot to standard output",
		Example: "  gotong cat latest:/home/me/todo.txt\n  gotong cat latest:/shop.sql | psql shop",
		Args: func(c *cobra.Command, args []string) error {
			return firstError(minimumArgs(1)(c, args), maximumArgs(2)(c, args))
		},
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		name, path := snapshotAndPath(args)
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			stream, err := peer.Cat(ctx, &controlv1.CatRequest{Snapshot: name, Path: path})
			if err != nil {
				return err
			}
			return each(stream, func(p *controlv1.CatPiece) error {
				_, err := a.stdout.Write(p.Data)
				return err
			})
		})
	}
	return c
}
