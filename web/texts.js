// What our part of the page says, in the language of the page.
import { app } from "../../scripts/app.js";

const LANGUAGES = ["en", "zh", "ja", "ko", "fr"];

/** Per text: English, Chinese, Japanese, Korean, French. */
const TEXTS = {
  // The tab with the presets
  tab: ["Q-Sched presets", "Q-Sched 预设", "Q-Sched プリセット", "Q-Sched 프리셋", "Préréglages Q-Sched"],
  search: ["Search presets", "搜索预设", "プリセットを検索", "프리셋 검색", "Chercher un préréglage"],
  "only fitting": ["Fits this graph", "适合此工作流", "このグラフに合うもの", "이 그래프에 맞는 것", "Adaptés à ce graphe"],
  import: ["Import", "导入", "取り込む", "가져오기", "Importer"],
  refresh: ["Refresh", "刷新", "更新", "새로 고침", "Actualiser"],
  insert: ["Insert", "插入", "挿入", "삽입", "Insérer"],
  rename: ["Rename", "重命名", "名前を変更", "이름 바꾸기", "Renommer"],
  share: ["Share picture", "分享图片", "共有用の画像", "공유 그림", "Image à partager"],
  ok: ["OK", "确定", "OK", "확인", "OK"],
  cancel: ["Cancel", "取消", "キャンセル", "취소", "Annuler"],
  "new name": ["New name", "新名称", "新しい名前", "새 이름", "Nouveau nom"],
  "drop here": [
    "Drop a preset file here to import it, or on the canvas to open its workflow.",
    "将预设文件拖到此处即可导入；拖到画布上则打开其工作流。",
    "プリセットのファイルをここに落とすと取り込み、キャンバスに落とすとワークフローを開きます。",
    "프리셋 파일을 여기에 놓으면 가져오고, 캔버스에 놓으면 워크플로를 엽니다.",
    "Déposez ici un fichier de préréglage pour l’importer, ou sur le canevas pour ouvrir son workflow.",
  ],
  "none there": [
    "There are no presets yet.",
    "还没有预设。",
    "プリセットはまだありません。",
    "아직 프리셋이 없습니다.",
    "Il n’y a pas encore de préréglage.",
  ],
  "none found": [
    "No preset is like that.",
    "没有符合条件的预设。",
    "該当するプリセットはありません。",
    "해당하는 프리셋이 없습니다.",
    "Aucun préréglage ne correspond.",
  ],
  imported: ["Imported: {name}", "已导入：{name}", "取り込みました：{name}", "가져옴: {name}", "Importé : {name}"],
  renamed: ["Renamed: {name}", "已重命名：{name}", "名前を変更しました：{name}", "이름을 바꿈: {name}", "Renommé : {name}"],
  inserted: ["Inserted.", "已插入。", "挿入しました。", "삽입했습니다.", "Inséré."],
  connected: [
    "Inserted and plugged into {name}.",
    "已插入并连接到 {name}。",
    "挿入し、{name} につなぎました。",
    "삽입하고 {name}에 연결했습니다.",
    "Inséré et branché sur {name}.",
  ],
  "no preset": [
    "this is no preset file.",
    "这不是预设文件。",
    "プリセットのファイルではありません。",
    "프리셋 파일이 아닙니다.",
    "ce n’est pas un fichier de préréglage.",
  ],
  "no server": [
    "The server does not answer. Try Refresh once it is back.",
    "服务器没有响应。恢复后请点“刷新”。",
    "サーバーが応答しません。復帰したら「更新」を押してください。",
    "서버가 응답하지 않습니다. 돌아오면 ‘새로 고침’을 누르세요.",
    "Le serveur ne répond pas. Actualisez quand il sera revenu.",
  ],
  shipped: ["came with Q-Sched", "随 Q-Sched 附带", "Q-Sched に付属", "Q-Sched에 포함됨", "fourni avec Q-Sched"],
  "any model": ["any model", "任意模型", "任意のモデル", "모든 모델", "tout modèle"],
  steps: ["{count} steps", "{count} 步", "{count} ステップ", "{count}스텝", "{count} étapes"],
  fits: ["Fits this graph", "适合此工作流", "このグラフに合います", "이 그래프에 맞습니다", "Adapté à ce graphe"],
  differs: ["Does not fit", "不适合", "合いません", "맞지 않습니다", "Ne convient pas"],
  difference: [
    "{what}: preset {preset}, here {here}",
    "{what}：预设为 {preset}，此处为 {here}",
    "{what}：プリセットは {preset}、ここでは {here}",
    "{what}: 프리셋 {preset}, 여기 {here}",
    "{what} : préréglage {preset}, ici {here}",
  ],
  "known later": [
    "Not known until it ran: {names}",
    "运行后才能知道：{names}",
    "実行するまで分かりません：{names}",
    "실행해야 알 수 있음: {names}",
    "Inconnu avant exécution : {names}",
  ],
  "part model": ["model", "模型", "モデル", "모델", "modèle"],
  "part fingerprint": ["checkpoint", "检查点", "チェックポイント", "체크포인트", "checkpoint"],
  "part quantization": ["quantisation", "量化", "量子化", "양자화", "quantification"],
  "part steps": ["steps", "步数", "ステップ数", "스텝 수", "étapes"],
  "part sampler": ["sampler", "采样器", "サンプラー", "샘플러", "échantillonneur"],
  "part scheduler": ["scheduler", "调度器", "スケジューラー", "스케줄러", "scheduler"],
  "part cfg": ["cfg", "cfg", "cfg", "cfg", "cfg"],
  accepted: ["accepted", "已接受", "採用", "채택", "accepté"],
  "identity recommended": [
    "identity recommended",
    "建议不使用（恒等）",
    "恒等（変更なし）を推奨",
    "항등(변경 없음) 권장",
    "identité recommandée",
  ],
  "not validated": ["not validated", "未经验证", "未検証", "검증되지 않음", "non validé"],
  "made by hand": ["made by hand", "手工制作", "手作り", "손으로 만듦", "fait à la main"],
  // The blind vote
  "arena.hint": [
    "Run it: two pictures appear here. Choose the better one with ← and →.",
    "运行后这里会并排出现两张图片。用 ← 和 → 选出更好的一张。",
    "実行すると 2 枚の画像が並びます。← と → で良い方を選んでください。",
    "실행하면 두 그림이 나란히 나타납니다. ← 와 → 로 더 나은 쪽을 고르세요.",
    "Exécutez : deux images apparaissent ici. Choisissez la meilleure avec ← et →.",
  ],
  "arena.progress": [
    "Pair {n} of {total}: which one is better?",
    "第 {n} 对，共 {total} 对：哪张更好？",
    "{total} 組中 {n} 組目：どちらが良いですか？",
    "{total}쌍 중 {n}번째: 어느 쪽이 더 낫습니까?",
    "Paire {n} sur {total} : laquelle est la meilleure ?",
  ],
  "arena.complete": [
    "All {total} pairs are voted on.",
    "{total} 对都已投票。",
    "{total} 組すべての投票が済みました。",
    "{total}쌍 모두 투표했습니다.",
    "Les {total} paires ont leur vote.",
  ],
  "arena.gone": [
    "The pictures are gone with the server's restart. Run it again: the votes are kept ({n}).",
    "服务器重启后图片已不在。请再运行一次：你的 {n} 票都已保留。",
    "サーバーの再起動で画像はなくなりました。もう一度実行してください。{n} 票は残っています。",
    "서버가 다시 시작되어 그림이 없습니다. 다시 실행하세요. {n}표는 남아 있습니다.",
    "Les images ont disparu au redémarrage du serveur. Relancez : les votes sont gardés ({n}).",
  ],
  "arena.lost": [
    "The server does not answer: nothing was counted. Try again.",
    "服务器没有响应：未计票。请重试。",
    "サーバーが応答しません。票は数えられていません。もう一度どうぞ。",
    "서버가 응답하지 않아 집계되지 않았습니다. 다시 시도하세요.",
    "Le serveur ne répond pas : rien n’a été compté. Réessayez.",
  ],
  "arena.left": ["← this one", "← 这张", "← こちら", "← 이쪽", "← celle-ci"],
  "arena.right": ["this one →", "这张 →", "こちら →", "이쪽 →", "celle-ci →"],
  "arena.skip": ["↓ skip", "↓ 跳过", "↓ スキップ", "↓ 건너뛰기", "↓ passer"],
  "arena.undo": ["⌫ undo", "⌫ 撤销", "⌫ 元に戻す", "⌫ 되돌리기", "⌫ annuler"],
  "arena.full": ["F full screen", "F 全屏", "F 全画面", "F 전체 화면", "F plein écran"],
  "arena.previous": ["←", "←", "←", "←", "←"],
  "arena.next": ["→", "→", "→", "→", "→"],
  "arena.close": ["Show the result", "显示结果", "結果を見る", "결과 보기", "Voir le résultat"],
  "arena.sure": [
    "Sure? {n} pairs are left",
    "确定？还剩 {n} 对",
    "残り {n} 組。本当に？",
    "{n}쌍이 남았습니다. 그래도?",
    "Vraiment ? Il reste {n} paires",
  ],
  "arena.better": [
    "Better with the preset",
    "使用预设更好",
    "プリセットありの方が良い",
    "프리셋을 쓴 쪽이 더 낫습니다",
    "Meilleur avec le préréglage",
  ],
  "arena.worse": [
    "Worse with the preset",
    "使用预设更差",
    "プリセットありの方が悪い",
    "프리셋을 쓴 쪽이 더 나쁩니다",
    "Moins bon avec le préréglage",
  ],
  "arena.no difference seen": [
    "No difference seen",
    "看不出差别",
    "違いは見られません",
    "차이가 보이지 않습니다",
    "Aucune différence constatée",
  ],
  "arena.too few votes": [
    "Too few votes to say",
    "票数太少，无法判断",
    "票が少なすぎて判断できません",
    "표가 너무 적어 알 수 없습니다",
    "Trop peu de votes pour conclure",
  ],
  "arena.won": [
    "it won {wins} of {decided}",
    "{decided} 票中胜 {wins} 票",
    "{decided} 票中 {wins} 勝",
    "{decided}표 중 {wins}승",
    "gagne {wins} fois sur {decided}",
  ],
  "arena.skipped": ["{skips} skipped", "跳过 {skips} 对", "スキップ {skips}", "건너뜀 {skips}", "{skips} passées"],
  "arena.with": ["with the preset", "使用预设", "プリセットあり", "프리셋 사용", "avec le préréglage"],
  "arena.without": ["without", "未使用", "なし", "미사용", "sans"],
  "arena.yours": ["your choice", "你的选择", "あなたの選択", "내 선택", "votre choix"],
};

/**
 * @param {string} key
 * @param {Object<string, string|number>} values for the {names} in the text
 * @returns {string} in English where there is no other; the key itself where there is no such text
 */
export function text(key, values = {}) {
  const found = Object.hasOwn(TEXTS, key) ? TEXTS[key] : [key];
  const language = String(app.extensionManager?.setting?.get?.("Comfy.Locale") ?? "en").slice(0, 2);
  const words = found[LANGUAGES.indexOf(language)] ?? found[0];
  return words.replace(/\{(\w+)\}/g, (whole, name) => (Object.hasOwn(values, name) ? String(values[name]) : whole));
}
