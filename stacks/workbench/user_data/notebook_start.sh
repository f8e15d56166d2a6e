#!/bin/bash
# Runs as root at each start of the notebook instance: installs the check that stops it when idle, and puts the
# stage's notebook and its names into the user's folder. Without the check the instance does not start: better no
# notebook than one that nobody stops. A notebook that cannot be copied is only said.
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
home="${ROOT:-}/home/ec2-user/SageMaker/kennel"
mkdir -p "$home"
cat > "$home/stage.json" <<'KENNEL_STAGE_END'
@@STAGE@@
KENNEL_STAGE_END
aws s3 cp --no-progress "@@NOTEBOOK@@" "$home/operate.ipynb" || echo "operate.ipynb was not copied from @@NOTEBOOK@@"
aws s3 cp --no-progress "@@REQUIREMENTS@@" "$home/requirements.txt" || echo "requirements.txt was not copied"
chown -R ec2-user "$home" || true
