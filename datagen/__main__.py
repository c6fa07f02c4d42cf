"""`python -m datagen`."""

try:
    from datagen.cli import main
except KeyboardInterrupt:  # Ctrl-C while the program loads
    raise SystemExit(130) from None

main()
