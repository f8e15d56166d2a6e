#!/bin/bash
# Runs as root at each start of the notebook instance and installs the check that stops it when idle.
# A failure here keeps the instance from starting: better no notebook than one that nobody stops.
# @@...@@ are filled in when the stack is synthesized; ROOT is empty but in tests.
set -euo pipefail
program="${ROOT:-}/usr/local/lib/kennel/notebook_idle.py"
mkdir -p "$(dirname "$program")" "${ROOT:-}/run"
cat > "$program" <<'KENNEL_IDLE_END'
@@IDLE@@
KENNEL_IDLE_END
rm -f "${ROOT:-}/run/kennel-seen"
# A transient timer: /etc would need no cleaning up, and Amazon Linux 2023 has no cron.
systemd-run --unit=kennel-idle --on-active=5min --on-unit-active=5min /usr/bin/python3 "$program" @@IDLE_MINUTES@@
