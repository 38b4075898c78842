# SPDX-License-Identifier: Apache-2.0
# Predicted against measured time, both logarithmic, with a band of +-10 %.
ep_top = ep_head + 21 * (|ep_series| + 1) + 16
ep_bottom = ep_top + 400
ep_h = ep_bottom + 66
eval ep_open
eval ep_place
set key at screen sx(4),sy(ep_head) top left
set logscale xy 10
set format x '%g'
set format y '%g'
set xrange [ep_min:ep_max]
set yrange [ep_min:ep_max]
set xlabel ep_x_label offset 0,0.7
set style fill solid 0.45 noborder
file = ep_name.'.tsv'
set samples 200
# M0 open, the rung that each fit chose filled and smaller: where M0 was chosen, both are there.
array point[2] = [6, 7]
array size[2] = [0.9, 0.5]
array tone[2] = [2, 1]
mine(i, x) = (i == 1 ? stringcolumn('rung') eq 'M0' : column('chosen') == 1) ? x : NaN
plot '+' using 1:($1 * 0.9):($1 * 1.1) with filledcurves lc rgb '#c8c8c8' notitle, \
     x with lines lc rgb '#555555' lw 1 notitle, \
     for [i = 1:2] file using (mine(i, column('measured_s')) * 1e3):(column('predicted_s') * 1e3) with points lc tone[i] pt point[i] ps size[i] notitle, \
     for [i = 1:2] NaN with points lc tone[i] pt point[i] ps size[i] * 1.2 title ep_series[i], \
     NaN with boxes lc rgb '#c8c8c8' title 'band: within 10 % of the measured time'
